"""From the facts of a labelled data set to the settings of a bundle for it, each with its reason."""
