"""Where noise comes from, and the grid on which it is exact.

source     a mechanism's randomness
keystream  noise and subsets as functions of one key
grid       the integer grid, and what may be put on it
"""
