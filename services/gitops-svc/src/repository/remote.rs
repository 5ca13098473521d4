//! What a remote's answer to a push or fetch means. Pure.
//!
//! Remotes say the same thing in many words; those here were seen at git itself, GitHub, GitLab, Bitbucket and Gitea.

use crate::change::{Code, Reason};

/// What went wrong at the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Somebody else pushed first: fetch, apply again, push again.
    LostRace,
    /// The answer is no, and stays no.
    Final(Reason),
    /// Worth another try.
    Transient(Reason),
}

impl Problem {
    /// For those who only want to tell it.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::LostRace => Reason::new(
                Code::RemoteUnreachable,
                "somebody else is writing at the same time",
            ),
            Self::Final(reason) | Self::Transient(reason) => reason,
        }
    }
}

/// What we say of a remote's own words is cut at this length.
const MAX_WORDS: usize = 2000;

const LOST_RACE: [&str; 12] = [
    "non-fast-forward",
    "fetch first",
    "stale info",
    "incorrect old value provided",
    "cannot lock ref",
    "failed to update ref",
    "failed to lock",
    "remote ref updated since checkout",
    "reference already exists",
    "but expected",
    "base branch was modified",
    "unable to create '",
];

/// Final answers, the more telling first.
const FINAL: [(Code, &[&str]); 8] = [
    (
        Code::RemoteFull,
        &[
            "no space left",
            "disk quota exceeded",
            "quota exceeded",
            "over its data quota",
            "repository is over",
        ],
    ),
    (
        Code::BranchProtected,
        &[
            "protected branch",
            "protected branches",
            "gh006",
            "gh013",
            "repository rule violations",
            "branch permission",
            "branch is protected",
            "not allowed to push to protected",
        ],
    ),
    (
        Code::PushRefused,
        &[
            "hook declined",
            "denied by hook",
            "prereceive",
            "branch is currently checked out",
            "deny updating",
            "prohibited by",
        ],
    ),
    (
        Code::CredentialsRefused,
        &[
            "authentication failed",
            "could not read username",
            "could not read password",
            "invalid username or password",
            "invalid credentials",
            "returned error: 401",
            "permission denied (publickey",
            "host key verification failed",
            "bad credentials",
        ],
    ),
    (
        Code::PermissionDenied,
        &[
            "returned error: 403",
            "permission to ",
            "write access to repository not granted",
            "not allowed to push",
            "read-only",
            "permission denied",
            "insufficient permission",
            "access denied",
        ],
    ),
    (Code::BranchNotFound, &["couldn't find remote ref"]),
    (
        Code::RepositoryNotFound,
        &[
            "repository not found",
            "does not appear to be a git repository",
            "project you were looking for could not be found",
            "returned error: 404",
            "' not found",
            "no such project",
            "does not exist",
        ],
    ),
    (Code::PermissionDenied, &["dubious ownership"]),
];

/// Reads `git push --porcelain`'s answer for the one ref that was pushed.
pub(crate) fn push_answer(success: bool, stdout: &str, stderr: &str) -> Result<(), Problem> {
    // <flag> TAB <from>:<to> TAB <summary> (<reason>)
    let line = stdout
        .lines()
        .find(|line| line.contains(":refs/heads/") && line.get(1..2) == Some("\t"));
    if success {
        return Ok(());
    }
    let Some(line) = line else {
        return Err(problem(stderr));
    };
    match line.as_bytes().first() {
        // The remote has taken it (or had it), and git complains of something else.
        Some(b' ' | b'*' | b'=') => Ok(()),
        _ => {
            // The ref's own reason first: a hook may print anything.
            let reason = line.rsplit('\t').next().unwrap_or_default();
            Err(match problem_in(reason, reason) {
                Some(Problem::Final(found)) => {
                    // What the hook or the branch's rules said is in the other stream, and may tell more.
                    let told = match problem_in(stderr, stderr) {
                        Some(Problem::Final(told)) if found.code == Code::PushRefused => told.code,
                        _ => found.code,
                    };
                    Problem::Final(Reason::new(told, words(&format!("{reason}\n{stderr}"))))
                }
                Some(problem) => problem,
                None => problem(&format!("{reason}\n{stderr}")),
            })
        }
    }
}

/// Reads what git printed when it failed before any ref was answered for.
pub(crate) fn problem(stderr: &str) -> Problem {
    problem_in(stderr, stderr)
        .unwrap_or_else(|| Problem::Transient(Reason::new(Code::RemoteUnreachable, words(stderr))))
}

fn problem_in(text: &str, all: &str) -> Option<Problem> {
    let lower = text.to_lowercase();
    let any = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
    let last = FINAL.len();
    // A full disk also cannot lock or update a ref, so it is asked first.
    for (code, texts) in FINAL.iter().take(1) {
        if any(texts) {
            return Some(Problem::Final(Reason::new(*code, words(all))));
        }
    }
    if any(&LOST_RACE) {
        return Some(Problem::LostRace);
    }
    FINAL[1..last]
        .iter()
        .find(|(_, texts)| any(texts))
        .map(|(code, _)| Problem::Final(Reason::new(*code, words(all))))
}

/// A remote's words, fit for an error: one paragraph, printable, cut.
pub(crate) fn words(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let line = line.trim().trim_start_matches("remote:").trim();
            line.chars().filter(|c| !c.is_control()).collect::<String>()
        })
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
        .collect();
    let text = lines.join("; ");
    if text.is_empty() {
        "git failed and said nothing".to_owned()
    } else {
        text.chars().take(MAX_WORDS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Problem, problem, push_answer};
    use crate::change::Code;

    fn code(result: &Result<(), Problem>) -> Option<Code> {
        match result {
            Err(Problem::Final(reason)) => Some(reason.code),
            _ => None,
        }
    }

    #[test]
    fn a_lost_race_has_many_words() {
        for reason in [
            "[rejected] (non-fast-forward)",
            "[rejected] (fetch first)",
            "[rejected] (stale info)",
            "[rejected] (remote ref updated since checkout)",
            "[remote rejected] (incorrect old value provided)",
            "[remote rejected] (cannot lock ref 'refs/heads/main': is at 1a2b but expected 3c4d)",
            "[remote rejected] (failed to update ref)",
            "[remote rejected] (failed to lock)",
            "[remote rejected] (reference already exists)",
        ] {
            let stdout = format!("To /srv/shop.git\n!\t1a2b:refs/heads/main\t{reason}\nDone\n");
            let answer = push_answer(
                false,
                &stdout,
                "error: failed to push some refs to '/srv/shop.git'\n",
            );
            assert_eq!(answer, Err(Problem::LostRace), "{reason}");
        }
    }

    #[test]
    fn final_answers_are_told_apart() {
        let push = |reason: &str, stderr: &str| {
            push_answer(
                false,
                &format!("To x\n!\tab:refs/heads/main\t{reason}\nDone\n"),
                stderr,
            )
        };
        for (reason, stderr, wanted) in [
            (
                "[remote rejected] (pre-receive hook declined)",
                "remote: policy: no\n",
                Code::PushRefused,
            ),
            // A hook that talks like a lost race is still a hook.
            (
                "[remote rejected] (pre-receive hook declined)",
                "remote: fetch first!\n",
                Code::PushRefused,
            ),
            ("[remote rejected] (hook declined)", "", Code::PushRefused),
            (
                "[remote rejected] (protected branch hook declined)",
                "remote: error: GH006: Protected branch update failed for refs/heads/main.\n",
                Code::BranchProtected,
            ),
            (
                "[remote rejected] (push declined due to repository rule violations)",
                "remote: error: GH013: Repository rule violations found\n",
                Code::BranchProtected,
            ),
            (
                "[remote rejected] (pre-receive hook declined)",
                "remote: GitLab: You are not allowed to push code to protected branches on this project.\n",
                Code::BranchProtected,
            ),
            (
                "[remote rejected] (unpacker error)",
                "error: unable to write: No space left on device\n",
                Code::RemoteFull,
            ),
        ] {
            let answer = push(reason, stderr);
            assert_eq!(code(&answer), Some(wanted), "{reason} {stderr} {answer:?}");
        }
        for (stderr, wanted) in [
            (
                "fatal: Authentication failed for 'https://x/y.git/'",
                Code::CredentialsRefused,
            ),
            (
                "fatal: could not read Username for 'https://x': terminal prompts disabled",
                Code::CredentialsRefused,
            ),
            (
                "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                Code::CredentialsRefused,
            ),
            (
                "remote: Permission to a/b.git denied to bot.\nfatal: unable to access: The requested URL returned error: 403",
                Code::PermissionDenied,
            ),
            (
                "remote: Write access to repository not granted.",
                Code::PermissionDenied,
            ),
            (
                "remote: Repository not found.\nfatal: repository 'https://x/y.git/' not found",
                Code::RepositoryNotFound,
            ),
            (
                "fatal: '/srv/x.git' does not appear to be a git repository",
                Code::RepositoryNotFound,
            ),
            (
                "fatal: couldn't find remote ref refs/heads/gone",
                Code::BranchNotFound,
            ),
        ] {
            assert_eq!(code(&Err(problem(stderr))), Some(wanted), "{stderr}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for stderr in [
            "fatal: unable to access 'https://x/': Could not resolve host: x",
            "fatal: the remote end hung up unexpectedly",
            "fatal: unable to access 'https://x/': The requested URL returned error: 503",
            "ssh: connect to host x port 22: Connection timed out",
            "",
        ] {
            assert!(matches!(problem(stderr), Problem::Transient(_)), "{stderr}");
        }
    }

    #[test]
    fn what_was_taken_is_success() {
        assert_eq!(
            push_answer(true, "To x\n \tab:refs/heads/main\tab..cd\nDone\n", ""),
            Ok(())
        );
        assert_eq!(
            push_answer(true, "To x\n=\tab:refs/heads/main\t[up to date]\nDone\n", ""),
            Ok(())
        );
    }
}
