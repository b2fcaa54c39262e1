"""Run the trainer as `python -m fer_trainer`."""

from fer_trainer.cli import main

if __name__ == "__main__":
    main()
