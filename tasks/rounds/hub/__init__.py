"""What the hub does in one round: open it, collect and average the updates, close it.

open        who takes part, from which model, until when
context     what a step needs
answers     who has answered, who has refused, who is silent
collect     every line of what a site sends, checked
selection   which updates make the model, frozen once
phases      how phases end before the last one
aggregate   from updates to the model and its card
cards       what a model is, what it was made of
card_chain  the models as their signed cards have them
close       the pointer moves, and the round is written down
repair      the pointer, made anew
"""
