#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Tests of report.py and orc.py that need no dump."""
import struct
import sys
import unittest

# The checkout holds sources only.
sys.dont_write_bytecode = True

import orc
import report


def elf(*named):
    """A 64-bit ELF file with these sections: pairs of name and content."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, _ in named) + b".shstrtab\0"
    contents = [content for _, content in named] + [names]
    body, headers, offset = b"", bytes(64), 64
    for (name, _), content in zip([*named, (".shstrtab", b"")], contents):
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers += struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, offset + len(body), len(content), 0, 0, 1, 0)
        body += content
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, offset + len(body), 0, 64, 0, 0, 64, len(contents) + 1, len(contents))
    return bytearray(head + body + headers)


class Orc(unittest.TestCase):
    # sp = PREV_SP + 8, bp at BP_INDIRECT - 16; then sp in SP, bp unchanged.
    ENTRIES = bytes([8, 0, 0xF0, 0xFF, 0xA8, 0x02, 16, 0, 0, 0, 0x03, 0x0A])

    def test_registers_are_renumbered_and_nothing_else(self):
        file = elf((".orc_unwind", self.ENTRIES), (".orc_header", orc.HASH_7_3), (".text", self.ENTRIES))
        orc.translate(file)
        expected = bytes([8, 0, 0xF0, 0xFF, 0x81, 0x02, 16, 0, 0, 0, 0x05, 0x0A])
        self.assertEqual(file, elf((".orc_unwind", expected), (".orc_header", orc.HASH_6_4), (".text", self.ENTRIES)))

    def test_tables_of_another_format_are_left_alone(self):
        for file in [elf((".orc_unwind", self.ENTRIES), (".orc_header", bytes(20))), elf((".text", b"x"))]:
            before = bytes(file)
            orc.translate(file)
            self.assertEqual(file, before)

    def test_other_files_are_refused(self):
        with self.assertRaisesRegex(ValueError, "ELF"):
            orc.translate(bytearray(b"KDUMP   " * 20))


class Why(unittest.TestCase):
    CALL = 'bpf_destructive: bpf_crash_dump by program "p" id 1 tag 0 on cpu 0 task t pid 2 in task context: w'
    SAID = 'bpf_destructive: bpf_console_write by program "p" id 1 tag 0 on cpu 0 task t pid 2 in task context: s'
    PANIC = "Kernel panic - not syncing: w"

    def test_reasons_are_kept_in_order(self):
        log = ["before", self.SAID, self.CALL, "between", self.PANIC]
        self.assertEqual(report.why(log), [self.SAID, self.CALL, self.PANIC])

    def test_words_on_the_console_are_no_reason(self):
        with self.assertRaises(report.Missing):
            report.why(["before", self.SAID])


class CrashTime(unittest.TestCase):
    def test_time_is_utc(self):
        time = report.crash_time("OSRELEASE=7.3.4\nCRASHTIME=1795000000\n")
        self.assertEqual(time.isoformat(), "2026-11-18T11:06:40+00:00")

    def test_image_of_a_live_kernel(self):
        with self.assertRaises(report.Missing):
            report.crash_time("OSRELEASE=7.3.4\n")


class Lines(unittest.TestCase):
    def test_instruction_belongs_to_the_line_that_began_last(self):
        starts = [100, 110, 110, 130]
        self.assertEqual([report.line_index(starts, at) for at in (99, 100, 109, 110, 129, 130, 999)], [0, 0, 0, 2, 2, 3, 3])


class Paths(unittest.TestCase):
    def test_paths_are_shown_below_the_first_top_that_holds_them(self):
        tops = ["/top/build/linux", "/top"]
        for path, shown in [
            ("/top/build/linux/mm/oom_kill.c", "mm/oom_kill.c"),
            ("/top/tools/a.c", "tools/a.c"),
            ("./include/b.h", "include/b.h"),
            ("/topless/c.c", "/topless/c.c"),
        ]:
            self.assertEqual(report.relative(path, tops), shown)


if __name__ == "__main__":
    unittest.main()
