// SPDX-License-Identifier: GPL-2.0
//! What is known about a program. Its JSON is the one that users see: keys stay, times are ns.

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Program {
    pub id: u32,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub throws: u64,
    /// None if nothing ends its runs.
    pub deadline: Option<Deadline>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Deadline {
    pub class: Class,
    /// None if the default of its class is not known.
    pub limit_ns: Option<u64>,
    /// It has brought that limit along.
    pub own: bool,
    pub longest_ns: u64,
    pub ended_by_deadline: u64,
    pub ended_by_operator: u64,
    pub in_succession: u32,
    pub state: State,
    pub last_ended: Option<LastEnded>,
}

/// Whether its runs may sleep, which decides how long they may take as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Sleepable,
    Task,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sleepable => "sleepable",
            Self::Task => "task",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Runs,
    StoppedByOperator,
    StoppedTooOften,
}

impl State {
    pub fn text(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::StoppedByOperator => "stopped by operator",
            Self::StoppedTooOften => "stopped, too often",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastEnded {
    /// CLOCK_MONOTONIC
    pub at_ns: u64,
    pub spent_ns: u64,
    /// None if it ended because the program was stopped meanwhile.
    pub exceeded_ns: Option<u64>,
    pub held: Vec<String>,
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A program that has been ended, for the tests of all modules.
    pub fn spin() -> Program {
        Program {
            id: 17,
            name: "spin".into(),
            kind: "raw_tracepoint".into(),
            throws: 0,
            deadline: Some(Deadline {
                class: Class::Task,
                limit_ns: Some(250_000_000),
                own: false,
                longest_ns: 250_900_000,
                ended_by_deadline: 3,
                ended_by_operator: 1,
                in_succession: 2,
                state: State::StoppedByOperator,
                last_ended: Some(LastEnded {
                    at_ns: 60_000_000_000,
                    spent_ns: 250_900_000,
                    exceeded_ns: Some(250_000_000),
                    held: vec!["bpf_rcu_read_lock".into(), "bpf_spin_lock".into()],
                }),
            }),
        }
    }

    /// A program that runs for as long as it likes.
    pub fn plain() -> Program {
        Program {
            id: 3,
            name: "plain".into(),
            kind: "xdp".into(),
            throws: 12,
            deadline: None,
        }
    }

    #[test]
    fn keys_stay() {
        let json = serde_json::to_value([spin(), plain()]).unwrap();
        let expected = serde_json::json!([
            {
                "id": 17,
                "name": "spin",
                "type": "raw_tracepoint",
                "throws": 0,
                "deadline": {
                    "class": "task",
                    "limit_ns": 250000000,
                    "own": false,
                    "longest_ns": 250900000,
                    "ended_by_deadline": 3,
                    "ended_by_operator": 1,
                    "in_succession": 2,
                    "state": "stopped_by_operator",
                    "last_ended": {
                        "at_ns": 60000000000u64,
                        "spent_ns": 250900000,
                        "exceeded_ns": 250000000,
                        "held": ["bpf_rcu_read_lock", "bpf_spin_lock"],
                    },
                },
            },
            { "id": 3, "name": "plain", "type": "xdp", "throws": 12, "deadline": null },
        ]);
        assert_eq!(json, expected);
    }

    #[test]
    fn states_have_keys_of_their_own() {
        let json = |state: State| serde_json::to_value(state).unwrap();
        assert_eq!(json(State::Runs), "runs");
        assert_eq!(json(State::StoppedTooOften), "stopped_too_often");
    }
}
