"""How people are told. Nothing here knows a study, a round or an examination.

canvas   how a chart is made, as PNG and as SVG in the page's colours
pages    HTML from `templates`; everything that is shown is escaped
words    numbers, times and privacy in plain words
notices  who is told when something fails or nears its end
stores   what writing and reading a report needs of an object store
"""
