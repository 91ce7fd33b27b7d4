"""The mechanisms: each file has its guarantee, its edge cases and its source.

local_dp         patient-level, each update by itself
distributed_dp   patient-level, of the sum behind masks
gaussian_update  site-level, of a clipped update
svt              site-level selective sharing
gaussian         what those with Gaussian noise have in common
compression      selective sharing that protects nobody
"""
