"""From a reply to the options that it names, or to none: never a guess.

read           what a saved reply answers
parsing        the grammar
reply_text     a reply without decoration
reasoning      a reply without the model's own reasoning
statements     where a reply says what its answer is
short_replies  replies of hardly a word
option_list    lists of options
options        an item's options as a reply may name them
predicates     what is said of an option
denials        words that take an answer back
asides         what a reply says beside its answer
"""
