"""From a raw update to what may leave a site, and back.

train_local  what a site trains, in the form that its mechanism needs
sum_statistics  how good a model is, as sums that ride on a round's
sanitizer    the one door through which an update leaves
opened       from an opened sum to the step of the global model
accounting   what many releases cost
mechanisms/  one file each, with its guarantee
noise/       where noise comes from, and the grid on which it is exact
codecs/      an update as tensors, and what the hub accepts
secure_sum/  masks and encryption: the hub learns the sum
ledger/      what was spent, as a signed chain
audit/       attacks on what is released
"""
