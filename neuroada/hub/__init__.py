"""What ``job=push`` puts on the Hugging Face Hub: an adapter's files, a model card, and results in the Hub's formats.

The run folder may have been received: its texts are escaped, its names cannot become links, and of the values that it
records only those that a card needs are read. What belongs to the machine of the run stays there: paths, tokens,
texts of the data.
"""
