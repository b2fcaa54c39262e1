"""Pictures that ship with the package."""
