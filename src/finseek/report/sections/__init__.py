"""The sections of the page, one file each: from the artifacts to the blocks that the template draws."""
