"""The stream that every conversion runs on: what it becomes is planned to the byte, then bytes flow in bounded memory.

job          a conversion, decided: plan, check, stream, record, resume
plan         where every tensor of the new checkpoint will lie
destination  may the folder be used, is there room, what is copied unconverted
workers      threads that read a strip, transform it, hash it, write it
transforms   what happens to a strip
digest       the hash of a tensor
direct       reading and writing past the page cache
ledger       what is done, on the disk, for resume and verify
"""
