"""What a site's data must look like before a model may see it: suites, their runner, and recorded waivers.

suite         what a suite is
suites        the suites of a folder
suite_file    reads one, with everything that is wrong with it
suite_faults  what can be known to be wrong without data
value_faults  what is wrong with the values of arguments
parameters    what a suite is told about study and site
expand        a suite's checks, with parameters filled in
library       what Great Expectations says of an expectation
engine        runs checks with it
runner        validates one site
waivers       who let which expectation go, and until when
"""

import os

os.environ["GX_ANALYTICS_ENABLED"] = "False"  # before any module here imports Great Expectations
