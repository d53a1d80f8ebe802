#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# resolve_btfids warns about what it cannot resolve. With --fatal_warnings,
# which kbuild passes under CONFIG_WERROR, it must fail as well. Give it an
# object with a .BTF_ids section, and BTF that has and that lacks what the
# section asks for, and check its exit status.
#
# Environment:
#   RESOLVE_BTFIDS  the tool to test, instead of the one built for the selftests
#   CLANG           a clang that compiles for BPF

DIR="$(dirname "$(realpath "$0")")"
RESOLVE_BTFIDS="${RESOLVE_BTFIDS:-$DIR/tools/build/resolve_btfids/resolve_btfids}"
CLANG="${CLANG:-clang}"

. "$DIR/../kselftest/ktap_helpers.sh"

# Compile C from stdin to object $1, with the flags that follow.
compile()
{
	object="$1"
	shift
	$CLANG "$@" -c -x c -o "$TMP/$object" - ||
		ktap_exit_fail_msg "cannot compile $object"
}

# Resolve ids.o with BTF $1 and flag $2. Succeed if the exit status is what $3
# says, and if there are warnings about $4, or no $4 and no warnings.
resolve()
{
	"$RESOLVE_BTFIDS" ${2:+"$2"} --btf "$TMP/$1" "$TMP/ids.o" 2> "$TMP/output"
	status=$?

	case "$3:$status" in
	succeeds:0 | fails:[1-9]*) ;;
	*) return 1 ;;
	esac

	if [ "$4" ]; then
		[ -s "$TMP/output" ] && ! grep -qv "^WARN: .* $4" "$TMP/output"
	else
		[ ! -s "$TMP/output" ]
	fi
}

ktap_print_header

if [ ! -x "$RESOLVE_BTFIDS" ]; then
	ktap_skip_all "no resolve_btfids at $RESOLVE_BTFIDS"
	exit "$KSFT_SKIP"
fi
if ! $CLANG --target=bpf -c -x c -o /dev/null /dev/null 2> /dev/null; then
	ktap_skip_all "$CLANG does not compile for BPF"
	exit "$KSFT_SKIP"
fi

TMP="$(mktemp -d)" || exit "$KSFT_FAIL"
trap 'rm -rf "$TMP"' EXIT

compile ids.o -I"$DIR/../../../include" <<END
#define CONFIG_DEBUG_INFO_BTF
#include <linux/btf_ids.h>

BTF_KFUNCS_START(set)
BTF_ID_FLAGS(func, kfunc)
BTF_KFUNCS_END(set)

BTF_ID_LIST(list)
BTF_ID(struct, type)
END
compile complete --target=bpf -g <<END
struct type { int member; };
int kfunc(struct type *t) { return t->member; }
END
compile no_kfunc --target=bpf -g <<END
struct type { int member; };
int other(struct type *t) { return t->member; }
END
compile no_struct --target=bpf -g <<END
int kfunc(int arg) { return arg; }
END

ktap_set_plan 6

while read -r btf flag result missing; do
	test="$btf $flag $result"
	[ "$flag" = default ] && flag=
	if resolve "$btf" "$flag" "$result" "$missing"; then
		ktap_test_pass "$test"
	else
		ktap_print_msg "exit status $status, output:"
		sed 's/^/# /' "$TMP/output"
		ktap_test_fail "$test"
	fi
done <<END
complete	default			succeeds
complete	--fatal_warnings	succeeds
no_kfunc	default			succeeds	kfunc
no_kfunc	--fatal_warnings	fails		kfunc
no_struct	default			succeeds	type
no_struct	--fatal_warnings	fails		type
END

ktap_finished
