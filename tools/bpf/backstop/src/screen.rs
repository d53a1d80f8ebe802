// SPDX-License-Identifier: GPL-2.0
//! Where lines go that are shown again and again: on a terminal in place of those before.

use std::io::{IsTerminal, Result, Write, stdout};

use rustix::termios::tcgetwinsize;

/// To the upper left, and everything away.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Writes as much as the terminal has room for, or after what there is.
pub fn refresh(lines: &[String]) -> Result<()> {
    let out = stdout();
    let text = match tcgetwinsize(&out) {
        Ok(size) if out.is_terminal() && size.ws_row > 1 && size.ws_col > 0 => {
            let fitting = fit(lines, (size.ws_row - 1).into(), size.ws_col.into());
            format!("{CLEAR}{fitting}")
        }
        _ => lines.iter().flat_map(|line| [line, "\n"]).collect(),
    };
    let mut out = out.lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The first lines, and of each the beginning.
fn fit(lines: &[String], rows: usize, columns: usize) -> String {
    lines
        .iter()
        .take(rows)
        .flat_map(|line| line.chars().take(columns).chain(['\n']))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut() {
        let lines = ["abc", "größe", "x"].map(str::to_owned);
        assert_eq!(fit(&lines, 2, 4), "abc\ngröß\n");
        assert_eq!(fit(&lines, 9, 9), "abc\ngröße\nx\n");
    }
}
