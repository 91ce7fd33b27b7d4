"""One round through the store, at the sites and at the hub.

site/      what happens at a site
hub/       what happens at the hub
channels/  how updates travel between them
page/      the round's report
scores     figures over the held-out patients of several sites
pooled     the same for data that are public
"""
