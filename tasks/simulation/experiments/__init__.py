"""The paper's experiments: settings, paired statistics, figures, and the page of findings that is made from numbers."""
