# SPDX-License-Identifier: GPL-2.0
"""
Lets every drgn unwind a 7.3 kernel.

7.3 numbers the registers of its ORC tables anew. A drgn that is older refuses
the whole file, its DWARF too. readable() gives it a copy whose tables are in
the numbering of 6.4, which every drgn knows; nothing else differs.
"""
import mmap
import os
import shutil
import struct

# What .orc_header holds: the hash of arch/x86/include/asm/orc_types.h (scripts/orc_hash.sh).
HASH_7_3 = bytes.fromhex("137c36ad7627c4dd55932176bb0ecdbd5041fc82")
HASH_6_4 = bytes.fromhex("fe5d32bf581bd63b2ca9a5c65ba5a625eab3fe24")

# The registers in the order of their numbers. 6.4 has no AX: such an entry says nothing then.
ORDER_7_3 = ["UNDEFINED", "AX", "DX", "SP", "BP", "DI", "R10", "R13", "PREV_SP", "SP_INDIRECT", "BP_INDIRECT"]
ORDER_6_4 = ["UNDEFINED", "PREV_SP", "DX", "DI", "BP", "SP", "R10", "R13", "BP_INDIRECT", "SP_INDIRECT"]
NUMBER_6_4 = [ORDER_6_4.index(name) if name in ORDER_6_4 else 0 for name in ORDER_7_3] + [0] * 5

# struct orc_entry: two offsets, then a byte with both registers, then one with type and signal.
ENTRY_SIZE = 6
REGISTERS = 4
TRANSLATION = bytes(NUMBER_6_4[byte & 15] | NUMBER_6_4[byte >> 4] << 4 for byte in range(256))


def sections(elf):
    """Offset and size of the sections of a 64-bit little-endian ELF file, by name."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<3H", elf, 58)
    # Of each header: the name's offset, and the section's offset and size in the file.
    headers = [struct.unpack_from("<I20xQQ", elf, table + i * size) for i in range(count)]
    first = headers[names][1]
    return {
        elf[first + name : elf.find(b"\0", first + name)].decode(): (offset, length)
        for name, offset, length in headers
    }


def translate(elf):
    """Translates the tables of `elf`, a writable buffer, unless they have another format."""
    found = sections(elf)
    if ".orc_header" not in found or ".orc_unwind" not in found:
        return
    header, length = found[".orc_header"]
    if elf[header : header + length] != HASH_7_3:
        return
    elf[header : header + length] = HASH_6_4
    start, length = found[".orc_unwind"]
    entries = bytearray(elf[start : start + length])
    entries[REGISTERS::ENTRY_SIZE] = entries[REGISTERS::ENTRY_SIZE].translate(TRANSLATION)
    elf[start : start + length] = bytes(entries)


def readable(path, directory):
    """The path of a copy of the ELF file `path` in `directory` that every drgn can unwind with."""
    copy = os.path.join(directory, os.path.basename(path))
    shutil.copyfile(path, copy)
    with open(copy, "r+b") as file, mmap.mmap(file.fileno(), 0) as elf:
        translate(elf)
    return copy
