//! The words of remotes, as they were seen.

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
