"""The paper's experiments: settings, paired statistics, figures, and the page of findings that is made from numbers.

plan             which settings are run and compared
run              runs them
records          what an experiment leaves behind
files            where it lies
paired           paired differences and their verdicts
robustness       strategies against sites that send anything
claims           what the paper says, and what would show it
findings         the page
figures          its figures
figures_privacy  those about a budget
drawing          how a figure looks
gallery          all of them
metrics          the numbers as DVC reads them
"""
