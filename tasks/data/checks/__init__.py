"""What a site's data must look like before a model may see it: suites, their runner, and recorded waivers."""

import os

os.environ["GX_ANALYTICS_ENABLED"] = "False"  # before any module here imports Great Expectations
