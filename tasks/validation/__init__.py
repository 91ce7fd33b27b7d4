"""What a site's data must look like before a model may see it: suites, their runner, and recorded waivers."""
