# SPDX-License-Identifier: GPL-2.0
# The entry points. Each calls one script in the tool root; see 'make help'.

MAKEFLAGS += --no-print-directory
export KSRC NATIVE ACCEL T J V CHECK VERSION

enter := scripts/enter

.PHONY: run check check-debug source tree kernel selftests shell bench conformance fuzz mutants soak series refresh clean distclean \
	help

run: kernel selftests
	@$(enter) scripts/vm run

check: kernel selftests
	@$(enter) scripts/check

check-debug: kernel selftests
	@$(enter) scripts/check --debug

source:
	@$(enter) scripts/source

tree: source
	@$(enter) scripts/tree

kernel: tree
	@$(enter) scripts/kernel

selftests: kernel
	@$(enter) scripts/selftests

shell: kernel selftests
	@$(enter) scripts/vm shell

fuzz: kernel selftests
	@$(enter) scripts/vm fuzz $(if $(SEED),--seed $(SEED)) $(if $(FIRST),--first $(FIRST)) $(if $(N),--count $(N)) $(if $(J),--jobs $(J))

bench: kernel selftests
	@$(enter) scripts/bench

conformance: kernel
	@$(enter) --with conformance scripts/conformance

soak: kernel selftests
	@$(enter) scripts/vm soak $(if $(SECONDS),--seconds $(SECONDS))

mutants: kernel selftests
	@$(enter) scripts/vm mutants

series: tree
	@$(enter) scripts/series

refresh:
	@$(enter) scripts/refresh

clean:
	@scripts/clean

distclean:
	@scripts/clean --all

help:
	@sed -n 's/^## //p' Makefile

## make run         everything from nothing to the demonstration in a VM
## make check       everything from nothing to the verdict: host tests, then the VM tests
## make check-debug KUnit and the VM tests on a kernel that checks itself: KASAN, lockdep, kmemleak, ...
## make tree        build/linux: pristine source and one commit per patch
## make kernel      the bzImage and modules
## make selftests   the guest binaries
## make shell       an interactive VM with the modules and tools at hand
## make fuzz        random programs that throw or expire beside twins that release by hand, and what differs
## make bench       instruction counts under icount, as a table, JSON and a plot
## make conformance the kernel's own test_progs, unpatched beside patched, and what differs;
##                  T=veristat: all its BPF programs, their verdicts and their code, instead
## make soak        twenty programs that run away, for ten minutes under load
## make mutants     mistakes made on purpose in what unwinds programs, and the tests that notice each
## make series      build/series: mailable patches, checked
## make refresh     writes edits made in build/linux back into overlay and patches
## make clean       removes what was built, keeps the tree; distclean removes build/
##
## KSRC=            a Linux 7.3.y source of your own, tree or tar archive
## NATIVE=1         the host's tools instead of the tool root
## ACCEL=           auto (the default), kvm or tcg
## SECONDS=         how long make soak takes (600)
## T=               only the VM tests, suites of test_progs, or mutants that match this glob
## SEED= FIRST= N=  what make fuzz draws from (1), where it begins (0) and how many programs (10000)
## J=               jobs; V=1 prints every command
## CHECK=build      make series builds every step
## BACKSTOP_CACHE=  where tool root, downloads and ccache are kept (~/.cache/backstop)
