//! What to do about an open pull request. Pure.

use serde::{Deserialize, Serialize};
use slipway_model::CommitSha;

use slipway_model::Reason;

/// Whether a pull request is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    Open,
    Merged,
    /// Without being merged.
    Closed,
}

/// GitHub's `mergeable_state`.
/// <https://docs.github.com/en/graphql/reference/enums#mergestatestatus> has the meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Readiness {
    Clean,
    /// Mergeable, although a check that is not required fails or is running.
    Unstable,
    /// Mergeable, with hooks that GitHub Enterprise runs first.
    HasHooks,
    /// A required check or review is missing.
    Blocked,
    /// The branch's rules require it to contain the base's head.
    Behind,
    /// It conflicts.
    Dirty,
    Draft,
    /// GitHub is still determining it.
    Unknown,
}

/// A pull request, as reported by GitHub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    pub number: u64,
    pub url: String,
    pub state: PullState,
    /// The head of its own branch.
    pub head: CommitSha,
    /// Absent while GitHub is still determining it.
    pub mergeable: Option<bool>,
    pub readiness: Readiness,
    /// The commit on the base, once it is merged.
    pub merge_commit: Option<CommitSha>,
    /// Who merged it; empty if GitHub does not say.
    pub merged_by: String,
    pub labels: Vec<String>,
    /// Whether a review is requested.
    pub reviewers: bool,
}

/// What our edits result in on the current head of the target branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// It is the head our commit was made on.
    Unmoved,
    /// Something else was changed.
    Same,
    /// The values that they replace have changed.
    Differs,
    /// Others have made the same change already.
    Has,
    /// They cannot be made any more.
    Refuses(Reason),
    /// Somebody has broken the folder there: it does not render.
    Broken,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Record that it is merged.
    Merged,
    /// Record that it was closed by others.
    Closed,
    /// Close it: there is nothing left to change.
    Needless,
    /// Close it: the change is not possible any more.
    Impossible(Reason),
    /// Repeat the edits on the current head.
    Revise,
    /// Merge it, if its head is still ours.
    Merge,
    /// GitHub will know more soon.
    LookAgain,
    /// Nothing, and what it waits for; `None` if that is as unknown as before.
    Wait(Option<&'static str>),
}

/// Decides from what GitHub says, whether the pull request's head is our own commit, and what became of its target
/// branch.
///
/// Commits by others on our branch are neither overwritten nor merged by us.
pub fn follow(pull: &Pull, ours: bool, base: &Base, auto_merge: bool) -> Step {
    match pull.state {
        PullState::Merged => return Step::Merged,
        // Closed by us, before it could be recorded, if there is a reason for that.
        PullState::Closed => {
            return match base {
                Base::Has => Step::Needless,
                Base::Refuses(reason) => Step::Impossible(reason.clone()),
                _ => Step::Closed,
            };
        }
        PullState::Open => {}
    }
    if !ours {
        return Step::Wait(Some("a person, since others have pushed to its branch"));
    }
    let stale = matches!(pull.readiness, Readiness::Dirty | Readiness::Behind);
    match base {
        Base::Has => return Step::Needless,
        Base::Refuses(reason) => return Step::Impossible(reason.clone()),
        Base::Broken => return Step::Wait(Some("its folder to render on the target branch")),
        Base::Differs => return Step::Revise,
        Base::Same if stale => return Step::Revise,
        Base::Same | Base::Unmoved => {}
    }
    match (pull.readiness, pull.mergeable) {
        (Readiness::Draft, _) => Step::Wait(Some("a person to mark it as ready for review")),
        (Readiness::Blocked, _) => Step::Wait(Some("required checks or reviews")),
        // The base was read after GitHub was asked, and has not moved: GitHub lags behind.
        (Readiness::Dirty | Readiness::Behind, _) => Step::Wait(None),
        (Readiness::Unknown, _) | (_, None) if auto_merge => Step::LookAgain,
        (Readiness::Unknown, _) | (_, None) => Step::Wait(None),
        (_, Some(false)) => Step::Wait(Some("GitHub to find it mergeable")),
        (Readiness::Clean | Readiness::Unstable | Readiness::HasHooks, Some(true)) if auto_merge => {
            Step::Merge
        }
        (Readiness::Clean | Readiness::Unstable | Readiness::HasHooks, Some(true)) => {
            Step::Wait(Some("a person to merge it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Base, Pull, PullState, Readiness, Step, follow};
    use crate::reason::Code;
    use slipway_model::Reason;

    const READINESS: [Readiness; 8] = [
        Readiness::Clean,
        Readiness::Unstable,
        Readiness::HasHooks,
        Readiness::Blocked,
        Readiness::Behind,
        Readiness::Dirty,
        Readiness::Draft,
        Readiness::Unknown,
    ];

    fn bases() -> [Base; 6] {
        [
            Base::Unmoved,
            Base::Same,
            Base::Differs,
            Base::Has,
            Base::Broken,
            Base::Refuses(Reason::new(Code::FileNotFound, "gone")),
        ]
    }

    /// Every combination, checked against the rules one by one.
    #[test]
    fn each_combination_has_its_step() {
        let mut steps = 0;
        for state in [PullState::Open, PullState::Merged, PullState::Closed] {
            for readiness in READINESS {
                for mergeable in [None, Some(true), Some(false)] {
                    for base in bases() {
                        for ours in [true, false] {
                            for auto_merge in [true, false] {
                                let pull = Pull {
                                    number: 1,
                                    url: String::new(),
                                    state,
                                    head: "1".repeat(40).parse().unwrap(),
                                    mergeable,
                                    readiness,
                                    merge_commit: None,
                                    merged_by: String::new(),
                                    labels: Vec::new(),
                                    reviewers: false,
                                };
                                let step = follow(&pull, ours, &base, auto_merge);
                                check(&pull, ours, &base, auto_merge, &step);
                                steps += 1;
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(steps, 3 * 8 * 3 * 6 * 2 * 2);
    }

    fn check(pull: &Pull, ours: bool, base: &Base, auto_merge: bool, step: &Step) {
        let case = format!("{pull:?} ours {ours} {base:?} auto {auto_merge}: {step:?}");
        let open = pull.state == PullState::Open;
        let mergeable = pull.mergeable == Some(true)
            && matches!(
                pull.readiness,
                Readiness::Clean | Readiness::Unstable | Readiness::HasHooks
            );
        let stale = matches!(pull.readiness, Readiness::Dirty | Readiness::Behind);
        let moot = matches!(base, Base::Has | Base::Refuses(_));
        // Merged is merged.
        assert_eq!(*step == Step::Merged, pull.state == PullState::Merged, "{case}");
        // Closed by others, unless we had a reason to.
        assert_eq!(
            *step == Step::Closed,
            pull.state == PullState::Closed && !moot,
            "{case}"
        );
        // The work of others is not replaced, merged or closed.
        let acts = !matches!(step, Step::Wait(_) | Step::LookAgain);
        assert!(!(open && !ours && acts), "{case}");
        // A push is made only if it changes something.
        let revise = open && ours && (*base == Base::Differs || (*base == Base::Same && stale));
        assert_eq!(*step == Step::Revise, revise, "{case}");
        // A merge only if it is configured, possible, and still what the table in the description says.
        let merge = open && ours && auto_merge && mergeable && matches!(base, Base::Unmoved | Base::Same);
        assert_eq!(*step == Step::Merge, merge, "{case}");
        // What is obsolete is closed with its reason, and what is closed already ends with it.
        let ends = pull.state == PullState::Closed || (open && ours);
        match base {
            Base::Has if ends => assert_eq!(*step, Step::Needless, "{case}"),
            Base::Refuses(reason) if ends => {
                assert_eq!(*step, Step::Impossible(reason.clone()), "{case}");
            }
            _ => {}
        }
        // GitHub is asked again at once only if a merge is pending.
        assert!(*step != Step::LookAgain || auto_merge, "{case}");
    }
}
