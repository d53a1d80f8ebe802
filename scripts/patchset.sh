# The patch set as git objects of build/linux: what the repository holds, the commits it stands for, and back.
# Sourced after lib.sh. A patch is patches/NAME, whose header lists its new files, plus those files in the overlay.
# shellcheck shell=sh

LINUX=$BUILD/linux
# Where new kernel files lie in the repository. Every file there belongs to exactly one patch.
OVERLAY='Kconfig Documentation arch drivers include kernel lib rust samples tools'
HOST_ONLY=tools/testing/vm
MAX_OFFSET=10

# Nothing of a user's git configuration may change what becomes of a patch.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_EXTERNAL_DIFF \
	GIT_DIFF_OPTS
export LC_ALL=C GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_CONFIG_COUNT=0
for setting in 'safe.directory *' 'core.quotePath false' 'core.autocrlf false' 'core.hooksPath /dev/null' \
	'core.attributesFile /dev/null' 'core.excludesFile /dev/null' 'core.fsmonitor false' 'gc.auto 0' \
	'apply.whitespace nowarn' 'apply.ignoreWhitespace no' 'diff.suppressBlankEmpty false' \
	'i18n.commitEncoding UTF-8' 'i18n.logOutputEncoding UTF-8' 'log.showSignature false' 'submodule.recurse false'; do
	export "GIT_CONFIG_KEY_$GIT_CONFIG_COUNT=${setting% *}" "GIT_CONFIG_VALUE_$GIT_CONFIG_COUNT=${setting#* }"
	GIT_CONFIG_COUNT=$((GIT_CONFIG_COUNT + 1))
done

# Scratch files, gone with the script.
scratch=$(mktemp -d "$BUILD/patchset.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# linux COMMAND...: git in build/linux. with_index FILE COMMAND...: the same with an index that is not the work tree's.
linux() {
	git -C "$LINUX" "$@"
}

with_index() {
	index=$1
	shift
	GIT_INDEX_FILE=$index git -C "$LINUX" "$@"
}

# reject FILE REMEDY: one error line for each line of FILE, if it has any.
reject() {
	[ -s "$1" ] || return 0
	sed 's/^/error: /' "$1" >&2
	die "nothing was changed" "$2"
}

# lock_linux: one script at a time in build/linux.
lock_linux() {
	exec 9>"$BUILD/linux.lock"
	flock -n 9 || {
		echo "    waiting for another run that changes build/linux" >&2
		flock 9
	}
}

# settled: build/linux is on its branch, and not half-way through something of the user's.
settled() {
	for state in rebase-merge rebase-apply MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD BISECT_LOG; do
		[ ! -e "$LINUX/.git/$state" ] ||
			die "build/linux is in the middle of something ($state)" "finish or abort it; git status there says how"
	done
	branch=$(linux symbolic-ref -q --short HEAD || echo 'no branch')
	[ "$branch" = backstop ] || die "build/linux is on $branch" "git switch backstop there"
}

# untouched: build/linux is as scripts/tree made it.
untouched() {
	linux update-index -q --refresh
	[ "$(linux rev-parse HEAD)" = "$(linux rev-parse refs/backstop/made)" ] && linux diff-index --quiet HEAD
}

# new_files PATCH: the New-file headers of a patch on stdin, as lines "PATCH, path in the kernel, path in the repository".
new_files() {
	awk -v OFS='\t' -v name="$1" '
		$0 == "" { exit }
		/^New-file: / { n = split(substr($0, 11), path, " = "); print name, path[1], path[n] }'
}

# snapshot: the tree of all that the patch set consists of in the repository, as it is now.
snapshot() {
	[ -e "$TOP/patches/series" ] || die "patches/series: no such file"
	rm -f "$scratch/snapshot"
	# Files that a patch names may lie outside the overlay.
	for patch in "$TOP"/patches/*.patch; do
		[ ! -e "$patch" ] || new_files - <"$patch"
	done | cut -f 3 >"$scratch/named"
	# shellcheck disable=SC2046,SC2086 # lists of paths
	{
		in_checkout ls-files -z --others --exclude-standard -- patches/series 'patches/*.patch' $OVERLAY ":!$HOST_ONLY"
		[ ! -s "$scratch/named" ] || in_checkout --literal-pathspecs ls-files -z --others --exclude-standard -- \
			$(cat "$scratch/named")
	} | in_checkout update-index -z --add --stdin
	in_checkout write-tree
}

# in_checkout COMMAND...: git that writes to build/linux's objects, with the checkout as its work tree.
in_checkout() {
	GIT_INDEX_FILE=$scratch/snapshot git -C "$TOP" --git-dir="$LINUX/.git" --work-tree="$TOP" "$@"
}

# names INPUT: the patches in order.
names() {
	linux cat-file blob "$1:patches/series" | sed 's/#.*//; s/[[:space:]]//g; /^$/d'
}

# message NAME: the commit message of a patch on stdin.
message() {
	awk -v name="$1" '
		function bad(why) { print "error: patches/" name ": " why >"/dev/stderr"; failed = 1; exit 1 }
		part == 0 && /^Subject: [^ ]/ && subject == "" { subject = substr($0, 10); print subject; print ""; next }
		part == 0 && /^New-file: [^ ]/ { next }
		part == 0 && $0 == "" { part = 1; next }
		part == 0 { bad("line " NR " is no header (Subject, New-file): " $0) }
		$0 == "---" { part = 2; exit }
		$0 == "" { blank++; next }
		{ while (body && blank-- > 0) print ""; blank = 0; body = 1; print }
		END {
			if (failed) exit 1
			if (subject == "") bad("there is no Subject line")
			if (part != 2) bad("there is no --- line after the message")
			if (body) print ""
			print "Backstop-patch: " name
		}'
}

# owners INPUT: which patch each overlay file belongs to, as lines "patch, mode, blob, path in the kernel".
owners() {
	for name in $(names "$1"); do
		linux cat-file blob "$1:patches/$name" 2>/dev/null >"$scratch/patch" ||
			die "patches/series names $name, and there is no such patch"
		new_files "$name" <"$scratch/patch"
	done >"$scratch/claims"
	names "$1" >"$scratch/names"
	linux ls-tree -r "$1" | tr ' ' '\t' | awk -F '\t' -v OFS='\t' -v errors="$scratch/errors" -v names="$scratch/names" \
		-v claims="$scratch/claims" '
		function error(text) { print text >errors }
		function claim(repository, name) {
			if (repository in owner)
				error(repository " is claimed twice, by patches/" owner[repository] " and patches/" name)
			owner[repository] = name
		}
		BEGIN {
			printf "" >errors
			while ((getline <names) > 0) {
				if (listed[$1]++) error("patches/series names " $1 " twice")
			}
			while ((getline <claims) > 0) {
				claim($3, $1)
				kernel[$3] = $2
			}
		}
		$4 == "patches/series" { next }
		$4 ~ /^patches\// {
			if (!(substr($4, 9) in listed)) error($4 " is not in patches/series")
			next
		}
		{
			# The file itself, else the innermost directory that is claimed.
			for (place = $4; place != "" && !(place in owner); sub(/[^\/]*\/?$/, "", place));
			if (place == "") {
				error($4 " belongs to no patch; list it as New-file in the header of one")
				next
			}
			used[place] = 1
			path = kernel[place] substr($4, length(place) + 1)
			if (path in taken) error(path " comes from both " taken[path] " and " $4)
			taken[path] = $4
			print owner[place], $1, $3, path
		}
		END {
			for (place in owner)
				if (!(place in used))
					error("patches/" owner[place] " lists " place " as New-file, and there is no such file")
		}'
	sort -o "$scratch/errors" "$scratch/errors"
	reject "$scratch/errors" "every file of the overlay belongs to exactly one patch"
}

# apply NAME DIFF: into the index, exactly. git apply knows no fuzz; offsets it would accept silently.
apply() {
	awk '/^diff --git / { exit } NF { print; exit }' "$2" >"$scratch/garbage"
	[ ! -s "$scratch/garbage" ] || die "patches/$1 has text after --- that is no diff: $(cat "$scratch/garbage")"
	grep -q . "$2" || return 0
	with_index "$scratch/index" apply --cached --verbose "$2" >"$scratch/log" 2>&1 || {
		sed '/^Checking patch/d; s/^/    /' "$scratch/log" >&2
		die "patches/$1 does not apply to Linux $(sed -n 's/^version //p' "$BUILD/source.version")" \
			"adapt it to the source, as git says above"
	}
	offset=$(sed -n 's/.*(offset -\{0,1\}\([0-9]*\) lines\{0,1\})\.$/\1/p' "$scratch/log" | sort -n | tail -n 1)
	[ "${offset:-0}" -le $MAX_OFFSET ] || {
		sed '/^Checking patch/d; s/^/    /' "$scratch/log" >&2
		die "patches/$1 applies $offset lines away from where it says" \
			"see that each hunk is in its place, then correct its line numbers; $MAX_OFFSET lines are let pass"
	}
}

# commits INPUT PRISTINE: makes one commit per patch on PRISTINE and prints the last. The same input gives the same commits.
commits() {
	owners "$1" >"$scratch/owners"
	with_index "$scratch/index" read-tree "$2"
	parent=$2
	for name in $(names "$1"); do
		linux cat-file blob "$1:patches/$name" >"$scratch/patch"
		message "$name" <"$scratch/patch" >"$scratch/message" || exit 2
		sed '1,/^---$/d' "$scratch/patch" >"$scratch/diff"
		apply "$name" "$scratch/diff"

		# A diff changes files of the kernel, and only those.
		with_index "$scratch/index" diff-index --cached --no-renames --name-status "$parent" >"$scratch/changed"
		awk -F '\t' -v name="patches/$name" '
			FNR == NR { owner[$4] = $1; next }
			$1 == "A" { print name " adds " $2 " by diff; put it into the overlay and list it as New-file"; next }
			$2 in owner { print name " changes " $2 ", a new file of patches/" owner[$2] "; change it there" }
		' "$scratch/owners" "$scratch/changed" >"$scratch/errors"
		awk -F '\t' -v name="$name" '$1 == name { print $2 " " $3 "\t" $4 }' "$scratch/owners" >"$scratch/new"
		cut -f 2 "$scratch/new" | GIT_INDEX_FILE="$scratch/index" GIT_LITERAL_PATHSPECS=1 xargs -r -d '\n' \
			git -C "$LINUX" ls-files -- |
			sed "s|^|patches/$name adds a file that exists in the kernel, change it by diff: |" >>"$scratch/errors"
		[ -s "$scratch/new" ] || [ -s "$scratch/changed" ] || echo "patches/$name changes nothing" >>"$scratch/errors"
		reject "$scratch/errors" "the patch set is inconsistent"

		with_index "$scratch/index" update-index --add --index-info <"$scratch/new"
		parent=$(commit "$parent" "$(with_index "$scratch/index" write-tree)" <"$scratch/message")
	done
	echo "$parent"
}

# commit PARENT TREE: with the message on stdin, and nothing in it that depends on who makes it when.
commit() {
	GIT_AUTHOR_NAME=Backstop GIT_AUTHOR_EMAIL=backstop GIT_AUTHOR_DATE='@0 +0000' \
		GIT_COMMITTER_NAME=Backstop GIT_COMMITTER_EMAIL=backstop GIT_COMMITTER_DATE='@0 +0000' \
		git -C "$LINUX" commit-tree -p "$1" "$2"
}
