"""What was spent: a chain of signed entries for each site, and what verifies it.

ledger        a site's entries, written before what they pay for leaves
spent         how far each has come, as the hub sees it
chain         entries as bytes, and what makes them a chain
evidence      what verification needs, from the store or a folder
verification  a chain without the store, the network or the site
spend_table   what a study has spent, site by site
"""
