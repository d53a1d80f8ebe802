//! Runs real machines, with tests/stand-in in place of the guest's test program and
//! tests/stand-in-test_progs in that of the kernel's. Needs a kernel in build/linux: `cargo test -- --ignored`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../..")
        .canonicalize()
        .unwrap()
}

/// `vm`, at the top of the tree, with a log directory of its own.
fn vm(command: &str, logs: &str) -> Command {
    let mut vm = Command::new(env!("CARGO_BIN_EXE_vm"));
    vm.current_dir(top()).args([command, "--accel", "tcg"]);
    vm.args(["--log-dir", &format!("build/vm-tests/{logs}")]);
    vm
}

fn test(logs: &str, arguments: &[&str]) -> Output {
    let mut vm = vm("test", logs);
    vm.args(["--program", "tools/testing/vm/tests/stand-in"])
        .args(arguments);
    vm.output().unwrap()
}

/// The lines of the stream that are results or totals, without their indentation.
fn results(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let results = text.lines().map(str::trim_start).filter(|line| {
        ["ok ", "not ok ", "1.."]
            .iter()
            .any(|start| line.starts_with(start))
            || line.contains(" passed, ")
    });
    results.map(str::to_owned).collect()
}

#[test]
#[ignore = "boots machines"]
fn every_right_end_passes() {
    let output = test("right", &["--filter", "return/*", "end/*"]);
    assert_eq!(
        results(&output),
        [
            "1..2",
            "1..6",
            "ok 1 pass",
            "ok 2 skip # SKIP not here",
            "ok 3 nmi",
            "ok 4 append",
            "ok 5 crash_kernel",
            "ok 6 last",
            "ok 1 return",
            "1..8",
            "ok 1 reset",
            "ok 2 power_off",
            "ok 3 panic",
            "ok 4 halt",
            "ok 5 nmi",
            "ok 6 dump",
            "ok 7 skip # SKIP not here",
            "ok 8 either",
            "ok 2 end",
            "# 12 passed, 0 failed, 2 skipped",
        ]
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
#[ignore = "boots machines"]
fn every_wrong_end_fails_and_is_named() {
    let output = test("wrong", &["--filter", "wrong/*", "return/last"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for reason in [
        "# the guest says not ok",
        "# not on the console: /never said/",
        "# unexpected on the console: ",
        "# while it ran: guest reset",
        "# expected a guest reset, found guest power-off",
        "# guest reset before the guest was armed",
        "# could not be set up: nothing to set up",
        "# expected a guest reset, found guest panic: VFS: Unable to mount root fs",
        "# expected a guest halt, found guest panic: VFS: Unable to mount root fs",
        "# expected a crash dump, found guest panic: sysrq triggered crash",
        "# expected a guest reset, found guest hang: nothing for ",
    ] {
        assert!(text.contains(reason), "no '{reason}' in\n{text}");
    }
    // What comes after the test that ended the shared machine still runs.
    assert_eq!(
        results(&output).last().unwrap(),
        "# 1 passed, 11 failed, 0 skipped"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
#[ignore = "boots machines"]
fn a_saved_machine_serves_until_its_guest_changes() {
    let logs = top().join("build/vm-tests/saved");
    if logs.exists() {
        fs::remove_dir_all(&logs).unwrap();
    }
    let saved = logs.join("saved");
    let names = || {
        let entries = fs::read_dir(&saved).unwrap();
        Vec::from_iter(entries.map(|entry| entry.unwrap().file_name()))
    };
    let run = || {
        let output = test("saved", &["--filter", "end/reset", "end/power_off"]);
        assert_eq!(output.status.code(), Some(0));
    };
    run();
    let first = names();
    assert_eq!(first.len(), 1);
    let booted = fs::metadata(logs.join("ready/console.log")).unwrap();

    // Of another guest, and of a run that was killed.
    for stale in ["0123456789abcdef-0123456789abcdef", "part-stale"] {
        fs::create_dir(saved.join(stale)).unwrap();
    }
    run();
    assert_eq!(names(), first);
    let booted_again = fs::metadata(logs.join("ready/console.log")).unwrap();
    assert_eq!(booted.modified().unwrap(), booted_again.modified().unwrap());

    // The console begins with the boot.
    let console = fs::read_to_string(logs.join("end-reset/console.log")).unwrap();
    let place = |text| console.find(text).unwrap();
    assert!(place("Linux version") < place("Run /init") && place("Run /init") < place("sysrq: "));
}

#[test]
#[ignore = "boots machines"]
fn a_boot_that_fails_is_not_tried_again() {
    let output = test("failed", &["--filter", "wrong/*kernel"]);
    assert_eq!(output.status.code(), Some(1));
    let logs = fs::read_dir(top().join("build/vm-tests/failed")).unwrap();
    let mut logs = Vec::from_iter(logs.map(|entry| entry.unwrap().file_name()));
    logs.sort();
    assert_eq!(logs, ["ready-panic-on-nothing-rdinit--nowhere", "saved"]);
}

#[test]
#[ignore = "boots machines"]
fn skipped_tests_are_no_success() {
    let output = test("skip", &["--filter", "end/skip"]);
    assert_eq!(output.status.code(), Some(4));
}

#[test]
#[ignore = "boots machines"]
fn wrong_use_is_told_apart() {
    for arguments in [["--filter", "nothing"], ["--kernel", "/nowhere"]] {
        let output = test("use", &arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
#[ignore = "boots machines"]
fn boot_passes_output_and_status_through() {
    let output = vm("boot", "boot")
        .args(["--exec", "echo said; exit 3"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "said\n");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
#[ignore = "boots machines"]
fn the_shell_has_modules_and_tools() {
    let run = |command| vm("shell", "shell").args(["--exec", command]).output();
    let output = run("grep -o '^bpf_destructive ' /proc/modules
        bpftool version | grep -o '^bpftool '
        test -e Makefile && echo checkout
        touch /usr/here && echo overlay
        touch build/here || echo read-only >&2
        exit 3")
    .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "bpf_destructive \nbpftool \ncheckout\noverlay\n"
    );
    assert!(String::from_utf8_lossy(&output.stderr).ends_with("read-only\n"));
    assert!(!top().join("build/here").exists());
    assert_eq!(output.status.code(), Some(3));

    let output = run("echo c >/proc/sysrq-trigger").unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("before the command did"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
#[ignore = "boots machines"]
fn a_shell_without_a_terminal_is_refused() {
    let output = vm("shell", "shell").stdin(Stdio::null()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--exec"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
#[ignore = "boots machines"]
fn kunit_without_a_suite_fails() {
    let output = vm("kunit", "kunit")
        .args(["--filter", "nothing"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        results(&output).last().unwrap(),
        "# 0 passed, 0 failed, 0 skipped"
    );
}

/// `vm conformance` of suites of the stand-in, on one kernel that is told apart by its modules.
fn conformance(logs: &str, suites: &[&str], own_tests: bool) -> Output {
    let dir = top().join("build/vm-tests").join(logs);
    let (tests, own) = (dir.join("tests"), dir.join("own"));
    for tests in [&tests, &own] {
        fs::create_dir_all(tests.join("modules")).unwrap();
        fs::write(tests.join("modules/test.ko"), "").unwrap();
        fs::write(tests.join("suites"), suites.join("\n")).unwrap();
        let program = top().join("tools/testing/vm/tests/stand-in-test_progs");
        fs::copy(program, tests.join("test_progs")).unwrap();
    }
    fs::write(own.join("own"), "").unwrap();
    fs::write(own.join("modules/patched.ko"), "").unwrap();
    if !own_tests {
        fs::remove_file(own.join("suites")).unwrap();
    }
    let mut vm = vm("conformance", logs);
    vm.args(["--unpatched", "build/linux", "--filter", "*", "--tests"])
        .arg(tests)
        .arg("--own-tests")
        .arg(own)
        .arg("--expected")
        .arg(dir.join("expected"))
        .arg("--out")
        .arg(dir.join("conformance.json"));
    fs::write(dir.join("expected"), "changed changed it is to change\n").unwrap();
    vm.output().unwrap()
}

/// What `vm conformance` says behind the line that names the modules.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let (modules, rest) = text.split_once('\n').unwrap_or_default();
    assert!(
        modules.starts_with("loaded on the patched kernel: "),
        "{text}"
    );
    assert!(modules.contains("bpf_unwind"), "{text}");
    rest.to_owned()
}

#[test]
#[ignore = "boots machines"]
fn conformance_tells_what_is_worse() {
    let suites = ["same", "mended", "broken", "dies", "panics", "warns"];
    let output = conformance("conformance", &suites, false);
    assert_eq!(
        told(&output),
        "\
skipped on both:
  same/skips
fail on both:
  same
  same/fails
differ, none for the worse:
  mended: fail -> pass
worse on the patched kernel:
  broken: pass -> fail
    | why broken fails
  dies: pass -> lost
    | test_progs ended with status 139
  panics: pass -> lost
    | guest panic: sysrq triggered crash
  panics (kernel log): absent -> fail
    | Kernel panic - not syncing: sysrq triggered crash
  warns (kernel log): absent -> fail
    | WARNING: in the stand-in
2 pass on both, 1 skipped on both, 2 fail on both, 1 differ, none for the worse, \
0 changed by the patch set's tests, 0 expected to fail, as the patch set changes it, \
5 worse on the patched kernel
"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
#[ignore = "boots machines"]
fn conformance_knows_what_the_patch_set_changes() {
    let output = conformance("conformance-own", &["same", "changed"], true);
    let text = told(&output);
    assert!(
        text.contains("patch set changes it:\n  changed: it is to change\n"),
        "{text}"
    );
    assert!(
        text.ends_with(", 0 worse on the patched kernel\n"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
#[ignore = "boots machines"]
fn an_interrupt_leaves_nothing() {
    let logs = top().join("build/vm-tests/interrupt");
    if logs.exists() {
        fs::remove_dir_all(&logs).unwrap();
    }
    for interrupt in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let mut vm = vm("boot", "interrupt");
        vm.args(["-v", "--exec", "sleep 1000"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = vm.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("Run /init")));
        let machine = qemu(&logs).expect("QEMU runs");
        kill(Pid::from_raw(child.id().try_into().unwrap()), interrupt).unwrap();
        let status = child.wait().unwrap();
        // The kernel's signal to QEMU takes a moment, and QEMU is no child of ours to wait for.
        let deadline = Instant::now() + Duration::from_secs(5);
        while qemu(&logs).is_some() {
            assert!(
                Instant::now() < deadline,
                "QEMU {machine} outlives {interrupt}"
            );
            sleep(Duration::from_millis(10));
        }
        if interrupt != Signal::SIGKILL {
            assert_eq!(status.code(), Some(2));
            let left = fs::read_dir(&logs)
                .unwrap()
                .map(|entry| entry.unwrap().file_name());
            assert_eq!(left.collect::<Vec<_>>(), ["boot"]);
        }
    }
}

#[test]
#[ignore = "boots machines"]
fn an_interrupt_leaves_no_half_saved_machine() {
    let logs = top().join("build/vm-tests/interrupt-saving");
    if logs.exists() {
        fs::remove_dir_all(&logs).unwrap();
    }
    let mut vm = vm("test", "interrupt-saving");
    vm.args(["--program", "tools/testing/vm/tests/stand-in"]);
    vm.args(["--filter", "end/reset", "end/power_off"]);
    let mut child = vm.stdout(Stdio::null()).spawn().unwrap();
    while !fs::read_to_string(logs.join("ready/console.log"))
        .is_ok_and(|console| console.contains("Run /init"))
    {
        assert!(child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(10));
    }
    let process = Pid::from_raw(child.id().try_into().unwrap());
    kill(process, Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert_eq!(fs::read_dir(logs.join("saved")).unwrap().count(), 0);
}

/// The process id of the QEMU that logs there.
fn qemu(logs: &Path) -> Option<i32> {
    let logs = logs.strip_prefix(top()).unwrap().to_str().unwrap();
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let entry = entry.unwrap();
        let id = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        (command.starts_with("qemu") && command.contains(logs)).then_some(id)
    })
}
