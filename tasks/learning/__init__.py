"""The mathematics of a round: no site, no hub, no privacy.

building     from `model.path` to a model
own_models/  whether rounds can be made of a model that is not ours
strategies/  from updates to the next model
tasks/       what can be learned: loss, figures and sums of each kind of endpoint
metrics      what a figure is called, and which way is better
training     gradient descent on a site's patients, and each patient's own gradient
evaluation   how good a model is on held-out patients
flat         named weights as one vector, and back
averaging    the weighted mean of updates
arrays       what arrays are called
seeding      randomness that comes from a seed
threads      how many threads torch may use
"""
