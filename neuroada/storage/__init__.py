"""How files are written and checked, so that a kill, a full disk or a power cut leaves nothing that looks whole."""
