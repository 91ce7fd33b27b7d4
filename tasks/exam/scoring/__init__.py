"""From options to points, and what they mean.

score          scores a run
score_records  what scoring says
exam_index     what scoring looks up in an exam
pass_criteria  when a sitting passes
slices         the properties by which scores are split
statistics     proportions, tests, intervals
"""
