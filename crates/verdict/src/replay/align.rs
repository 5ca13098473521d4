//! Finds the state of the object that each line printed by kubectl reports.
//!
//! kubectl has its own watch: it prints one line for each state of its object, in order, starting from some state near
//! its start. So lines and states are matched one by one in order; times only say what is too far apart. A state may be
//! skipped or reported twice if it reads the same as its neighbour, or if the recorder itself could not see it.

use std::collections::BTreeMap;

/// How long after the end of its state a line may come, or before the recorder saw it, in milliseconds. Streams are
/// recorded by processes that wait for a CPU; the matching itself is by order.
const LATE_MS: i64 = 3000;
const EARLY_MS: i64 = 1500;

/// One state of the object.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// When it was seen.
    pub(super) t_ms: i64,
    /// What kubectl says about it.
    pub(super) words: String,
    /// kubectl ends with it.
    pub(super) ends: bool,
    /// The recorder lost sight of the object before it.
    pub(super) after_gap: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Alignment {
    /// The state of each line.
    pub(super) states: Vec<Option<usize>>,
    /// The indexes of lines that no state explains.
    pub(super) unexplained: Vec<usize>,
}

/// How a line was matched to its state.
#[derive(Debug, Clone, Copy)]
struct Step {
    cost: u32,
    before: Option<usize>,
    explained: bool,
}

/// Matches the lines of one run, with their times, against the states of its object. `started`: when the run began.
pub(super) fn align(lines: &[(i64, &str)], states: &[State], started: i64) -> Alignment {
    let near = |index: usize, t: i64| {
        let until = states.get(index + 1).map_or(i64::MAX, |next| next.t_ms);
        states[index].t_ms <= t + EARLY_MS && until >= t - LATE_MS
    };
    let mut reached: Vec<BTreeMap<usize, Step>> = Vec::new();
    let mut unexplained = Vec::new();
    for (number, (t, line)) in lines.iter().enumerate() {
        let mut next = BTreeMap::new();
        match reached.last() {
            None => {
                // kubectl begins with a list, which an API server may answer from a cache that lags slightly.
                for index in 0..states.len() {
                    let until = states.get(index + 1).map_or(i64::MAX, |next| next.t_ms);
                    if states[index].words == *line && near(index, *t) && until >= started - LATE_MS {
                        let passed = i64::from(until < started);
                        offer(&mut next, index, u32::try_from(passed).unwrap_or(0), None, true);
                    }
                }
            }
            Some(before) => {
                for (&at, step) in before {
                    follow(
                        &mut next,
                        states,
                        at,
                        step.cost,
                        line,
                        lines[number - 1].1,
                        |index| near(index, *t),
                    );
                }
            }
        }
        if next.is_empty() {
            unexplained.push(number);
            // Continue as if it had reported the next state, so that one bad line is one disagreement.
            match reached.last() {
                Some(before) => {
                    for (&at, step) in before {
                        let index = if at + 1 < states.len() { at + 1 } else { at };
                        offer(&mut next, index, step.cost, Some(at), false);
                    }
                }
                None => {
                    for index in (0..states.len()).filter(|index| near(*index, *t)) {
                        offer(&mut next, index, 0, None, false);
                    }
                }
            }
        }
        reached.push(next);
    }
    Alignment {
        states: path(&reached),
        unexplained,
    }
}

/// Where a line can be if the previous one was at state `at`.
fn follow(
    next: &mut BTreeMap<usize, Step>,
    states: &[State],
    at: usize,
    cost: u32,
    line: &str,
    before: &str,
    near: impl Fn(usize) -> bool,
) {
    if states[at].ends {
        return;
    }
    let gap_ahead = states.get(at + 1).is_some_and(|state| state.after_gap);
    if (line == before || gap_ahead) && near(at) {
        offer(next, at, cost + 1, Some(at), true);
    }
    for index in at + 1..states.len() {
        let state = &states[index];
        let skipped = u32::try_from(index - at - 1).unwrap_or(u32::MAX);
        if state.words == line && near(index) {
            offer(next, index, cost.saturating_add(skipped), Some(at), true);
        }
        let says_nothing_new = state.words == line || state.words == states[at].words;
        if state.ends || !(says_nothing_new || state.after_gap) {
            break;
        }
    }
}

/// The cheapest path to a state is kept; among equals the first.
fn offer(next: &mut BTreeMap<usize, Step>, index: usize, cost: u32, before: Option<usize>, explained: bool) {
    if next.get(&index).is_none_or(|known| cost < known.cost) {
        next.insert(
            index,
            Step {
                cost,
                before,
                explained,
            },
        );
    }
}

fn path(reached: &[BTreeMap<usize, Step>]) -> Vec<Option<usize>> {
    let mut found = vec![None; reached.len()];
    let mut at = reached
        .last()
        .and_then(|last| last.iter().min_by_key(|(index, step)| (step.cost, **index)))
        .map(|(index, _)| *index);
    for (number, steps) in reached.iter().enumerate().rev() {
        let Some(index) = at else { break };
        let Some(step) = steps.get(&index) else { break };
        found[number] = step.explained.then_some(index);
        at = step.before;
    }
    found
}
