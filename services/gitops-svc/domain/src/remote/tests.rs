//! The messages of remotes, as they were observed.

use slipway_model::{Fault, Reason};

use super::{Moved, fetch_answer, has_no_such_object, push_answer, sorted, wants_it_whole};
use crate::reason::Code;

fn code(result: &Result<Moved, Fault<Reason>>) -> Option<&str> {
    match result {
        Err(Fault::Permanent(reason)) => Some(&reason.code),
        _ => None,
    }
}

/// What git printed before reporting on any ref.
fn said(stderr: &str) -> Result<Moved, Fault<Reason>> {
    push_answer(false, "", stderr)
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
        assert_eq!(answer, Ok(Moved::LostRace), "{reason}");
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
        assert_eq!(
            code(&answer),
            Some(wanted.as_str()),
            "{reason} {stderr} {answer:?}"
        );
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
        assert_eq!(code(&said(stderr)), Some(wanted.as_str()), "{stderr}");
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
        assert!(said(stderr).is_err_and(|fault| fault.is_transient()), "{stderr}");
    }
}

#[test]
fn what_was_taken_is_success() {
    assert_eq!(
        push_answer(true, "To x\n \tab:refs/heads/main\tab..cd\nDone\n", ""),
        Ok(Moved::Yes)
    );
    assert_eq!(
        push_answer(true, "To x\n=\tab:refs/heads/main\t[up to date]\nDone\n", ""),
        Ok(Moved::Yes)
    );
}

/// The answer of each kind of server to a push, as shown by `git push --porcelain`.
#[test]
fn servers_have_their_own_words() {
    for (server, reason, stderr, wanted) in [
        (
            "GitHub",
            "[remote rejected] (protected branch hook declined)",
            "remote: error: GH006: Protected branch update failed for refs/heads/main.\nremote: error: Required status check \"ci\" is expected.\n",
            Code::BranchProtected,
        ),
        (
            "GitHub",
            "[remote rejected] (push declined due to repository rule violations)",
            "remote: error: GH013: Repository rule violations found for refs/heads/main.\nremote: - Changes must be made through a pull request.\n",
            Code::BranchProtected,
        ),
        (
            "GitHub",
            "[remote rejected] (push declined due to repository rule violations)",
            "remote: error: GH013: Repository rule violations found for refs/heads/main.\nremote: - GITHUB PUSH PROTECTION\nremote:   - Push cannot contain secrets\n",
            Code::PushRefused,
        ),
        (
            "GitHub",
            "[remote rejected] (pre-receive hook declined)",
            "remote: error: GH001: Large files detected. You may want to try Git Large File Storage.\n",
            Code::PushRefused,
        ),
        (
            "GitLab",
            "[remote rejected] (pre-receive hook declined)",
            "remote: GitLab: You are not allowed to push code to this project.\n",
            Code::PermissionDenied,
        ),
        (
            "GitLab",
            "[remote rejected] (pre-receive hook declined)",
            "remote: GitLab: This deploy key does not have write access to this project.\n",
            Code::PermissionDenied,
        ),
        (
            "GitLab",
            "[remote rejected] (pre-receive hook declined)",
            "remote: GitLab: Commit message does not follow the pattern 'JIRA-\\d+'\n",
            Code::PushRefused,
        ),
        (
            "GitLab",
            "[remote rejected] (pre-receive hook declined)",
            "remote: GitLab: Your push has been rejected, because this repository has exceeded its size limit of 10 GiB by 1 GiB.\n",
            Code::RemoteFull,
        ),
        (
            "Bitbucket Data Center",
            "[remote rejected] (pre-receive hook declined)",
            "remote: Branch refs/heads/main can only be modified through pull requests.\nremote: Check your branch permissions configuration with the project administrator.\n",
            Code::BranchProtected,
        ),
        (
            "Bitbucket Cloud",
            "[remote rejected] (pre-receive hook declined)",
            "remote: Permission denied to update branch main.\n",
            Code::BranchProtected,
        ),
        (
            "Gitea",
            "[remote rejected] (pre-receive hook declined)",
            "remote: Gitea: Not allowed to push to protected branch main\n",
            Code::BranchProtected,
        ),
        (
            "Gitea",
            "[remote rejected] (pre-receive hook declined)",
            "remote: Gitea: User permission denied for writing.\n",
            Code::PermissionDenied,
        ),
        (
            "Azure DevOps",
            "[remote rejected] (TF402455: Pushes to this branch are not permitted; you must use a pull request to update this branch.)",
            "",
            Code::BranchProtected,
        ),
        (
            "Azure DevOps",
            "[remote rejected] (TF401027: You need the Git 'GenericContribute' permission to perform this action.)",
            "",
            Code::PermissionDenied,
        ),
        (
            "Azure DevOps",
            "[remote rejected] (VS403654: The push was rejected because it contains secrets.)",
            "",
            Code::PushRefused,
        ),
        (
            "git",
            "[remote rejected] (failed to update ref)",
            "remote: error: cannot lock ref 'refs/heads/main': Unable to create '/srv/x.git/refs/heads/main.lock': Permission denied\n",
            Code::PermissionDenied,
        ),
        (
            "git",
            "[remote rejected] (failed to update ref)",
            "remote: error: cannot lock ref 'refs/heads/main': Unable to create '/srv/x.git/refs/heads/main.lock': Read-only file system\n",
            Code::RemoteReadOnly,
        ),
        (
            "git",
            "[remote rejected] (failed to update ref)",
            "remote: error: cannot lock ref 'refs/heads/main': Unable to create '/srv/x.git/refs/heads/main.lock': No space left on device\n",
            Code::RemoteFull,
        ),
        (
            "git",
            "[remote rejected] (unpacker error)",
            "remote: error: insufficient permission for adding an object to repository database ./objects\nremote: fatal: failed to write object\n",
            Code::PermissionDenied,
        ),
        (
            "git",
            "[remote rejected] (branch is currently checked out)",
            "",
            Code::PushRefused,
        ),
    ] {
        let stdout = format!("To x\n!\tab:refs/heads/main\t{reason}\nDone\n");
        let answer = push_answer(false, &stdout, stderr);
        assert_eq!(
            code(&answer),
            Some(wanted.as_str()),
            "{server}: {reason} {stderr} {answer:?}"
        );
        let Err(Fault::Permanent(reason)) = answer else {
            panic!("{answer:?}");
        };
        assert!(reason.message.contains("; git says: "), "no remedy: {reason}");
    }
    let stdout = "To x\n!\tab:refs/heads/main\t[remote rejected] (TF401028: The reference 'refs/heads/main' has already been updated by another client, so you cannot update it. Please try again.)\nDone\n";
    assert_eq!(push_answer(false, stdout, ""), Ok(Moved::LostRace));
}

/// Answers before reporting on any ref.
#[test]
fn servers_have_their_own_words_for_who_we_are() {
    for (stderr, wanted) in [
        (
            "remote: Permission to acme/shop.git denied to robot.\nfatal: unable to access 'https://github.com/acme/shop.git/': The requested URL returned error: 403",
            Code::PermissionDenied,
        ),
        (
            "ERROR: The key you are authenticating with has been marked as read only.\nfatal: Could not read from remote repository.",
            Code::PermissionDenied,
        ),
        (
            "remote: This repository was archived so it is read-only.\nfatal: unable to access 'https://github.com/acme/shop.git/': The requested URL returned error: 403",
            Code::RemoteReadOnly,
        ),
        (
            "remote: The project you were looking for could not be found or you don't have permission to view it.\nfatal: repository 'https://gitlab.com/acme/shop.git/' not found",
            Code::RepositoryNotFound,
        ),
        (
            "remote: TF401019: The Git repository with name or identifier shop does not exist or you do not have permissions for the operation you are attempting.\nfatal: repository 'https://dev.azure.com/acme/_git/shop/' not found",
            Code::RepositoryNotFound,
        ),
        (
            "remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://gitlab.com/acme/shop.git/'",
            Code::CredentialsRefused,
        ),
        (
            "Gitea: Repository does not exist or you do not have access\nfatal: Could not read from remote repository.",
            Code::RepositoryNotFound,
        ),
    ] {
        let answer = said(stderr);
        assert_eq!(code(&answer), Some(wanted.as_str()), "{stderr} {answer:?}");
    }
    let passes = "remote: GitLab: The repository is temporarily read-only. Please try again later.";
    assert!(said(passes).is_err_and(|fault| fault.is_transient()));
}

#[test]
fn a_fetch_fills_our_disk_and_not_theirs() {
    for (stderr, wanted) in [
        (
            "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output",
            Code::StorageFull,
        ),
        (
            "fatal: cannot mkdir /data/mirrors/x.git: No space left on device",
            Code::StorageFull,
        ),
        (
            "remote: fatal: unable to write: No space left on device\nfatal: the remote end hung up",
            Code::RemoteFull,
        ),
    ] {
        assert_eq!(
            code(&fetch_answer(false, stderr)),
            Some(wanted.as_str()),
            "{stderr}"
        );
    }
}

#[test]
fn remotes_that_cannot_leave_things_out_say_so() {
    for stderr in [
        "fatal: dumb http transport does not support shallow capabilities",
        "fatal: Server does not support shallow clients",
        "fatal: remote error: filter 'blob:none' not supported",
    ] {
        let reason = sorted(stderr).unwrap().into_error();
        assert!(wants_it_whole(&reason), "{reason:?}");
    }
    assert!(!wants_it_whole(
        said("fatal: the remote end hung up").unwrap_err().error()
    ));
    assert!(has_no_such_object(
        "fatal: remote error: upload-pack: not our ref 1a2b"
    ));
}
