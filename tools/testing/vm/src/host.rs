//! Programs of the host that are asked for something and end.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// What the program prints, once it has ended well; else what it says of that.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("{program} does not run"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}: {}", output.status, errors.trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Vec<u8>> {
        output(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn what_is_printed_or_what_went_wrong() {
        assert_eq!(shell("echo a; echo b >&2").unwrap(), b"a\n");
        let error = shell("echo a; echo b >&2; exit 3").unwrap_err();
        assert_eq!(error.to_string(), "sh: exit status: 3: b");
        let error = output(&mut Command::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent does not run");
    }
}
