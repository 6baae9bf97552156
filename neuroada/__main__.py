"""``python -m neuroada`` is the command ``neuroada``."""

from neuroada.command_line.entry import main

if __name__ == "__main__":
    main()
