//! The messages of remotes, as they were observed.

use slipway_model::{Fault, Reason};

use super::{
    Fetched, Moved, ambiguous, fetch_answer, has_no_such_object, is_ambiguous, push_answer, sorted,
    wants_it_whole,
};
use crate::reason::Code;

fn code<T>(result: &Result<T, Fault<Reason>>) -> Option<&str> {
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
        assert!(matches!(answer, Ok(Moved::LostRace(_))), "{reason}: {answer:?}");
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
    assert!(matches!(push_answer(false, stdout, ""), Ok(Moved::LostRace(_))));
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

/// Each answer is final or passes, with its code and the words of its remedy.
#[test]
fn no_answer_is_retried_that_does_not_change_by_itself() {
    let rejected = |reason: &str, stderr: &str| {
        push_answer(
            false,
            &format!("To x\n!\tab:refs/heads/env/prod\t[remote rejected] ({reason})\nDone\n"),
            stderr,
        )
    };
    for (reason, stderr, wanted, remedy) in [
        (
            "failed to update ref",
            "remote: error: cannot lock ref 'refs/heads/env/prod': 'refs/heads/env' exists; cannot create 'refs/heads/env/prod'\n",
            Code::BranchConflict,
            "delete or rename one of them",
        ),
        (
            "directory file conflict",
            "",
            Code::BranchConflict,
            "whose name is a folder",
        ),
        (
            "shallow update not allowed",
            "",
            Code::PushRefused,
            "receive.shallowUpdate",
        ),
        ("missing necessary objects", "", Code::PushRefused, "git fsck"),
        (
            "unpacker error",
            "remote: fatal: pack exceeds maximum allowed size (1.00 KiB)\n",
            Code::PushRefused,
            "pack exceeds",
        ),
        (
            "unpacker error",
            "remote: error: object 1a2b: zeroPaddedFilemode: contains zero-padded file modes\nremote: fatal: fsck error in packed object\n",
            Code::PushRefused,
            "zero-padded",
        ),
        (
            "Working directory has unstaged changes",
            "",
            Code::PushRefused,
            "unstaged changes",
        ),
        ("funny refname", "", Code::PushRefused, "funny refname"),
        (
            "pre-receive hook declined",
            "remote: GitLab: LFS objects are missing. Ensure LFS is properly set up or try a manual \"git lfs push --all\".\n",
            Code::PushRefused,
            "git lfs push",
        ),
        (
            "pre-receive hook declined",
            "remote: error: GH008: Your push referenced at least 1 unknown Git LFS object:\n",
            Code::PushRefused,
            "GH008",
        ),
    ] {
        let answer = rejected(reason, stderr);
        assert_eq!(
            code(&answer),
            Some(wanted.as_str()),
            "{reason} {stderr} {answer:?}"
        );
        assert!(
            answer.unwrap_err().error().message.contains(remedy),
            "{reason} {stderr}"
        );
    }
    for (stderr, wanted, remedy) in [
        (
            "Host key verification failed.\nfatal: Could not read from remote repository.",
            Code::CredentialsRefused,
            "known_hosts_file",
        ),
        (
            "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. Their offer: ssh-rsa\nfatal: Could not read from remote repository.",
            Code::CredentialsRefused,
            "algorithm",
        ),
        (
            "git@x: Permission denied (password,keyboard-interactive).",
            Code::CredentialsRefused,
            "credentials",
        ),
        (
            "fatal: unable to access 'https://x/y.git/': SSL certificate problem: self-signed certificate",
            Code::CertificateRefused,
            "ca_file",
        ),
        (
            "fatal: unable to access 'https://x/y.git/': server certificate verification failed. CAfile: none CRLfile: none",
            Code::CertificateRefused,
            "ca_file",
        ),
        (
            "fatal: unable to access 'https://x/y.git/': SSL: no alternative certificate subject name matches target host name 'x'",
            Code::CertificateRefused,
            "renew it",
        ),
        (
            "fatal: unable to access 'https://x/y.git/': The requested URL returned error: 410",
            Code::RepositoryNotFound,
            "url",
        ),
        (
            "fatal: unable to access 'https://x/y.git/': The requested URL returned error: 302",
            Code::RepositoryNotFound,
            "url",
        ),
        (
            "error: RPC failed; HTTP 413 curl 22 The requested URL returned error: 413\nfatal: the remote end hung up unexpectedly",
            Code::PushRefused,
            "413",
        ),
        (
            "fatal: unable to access 'https://x/y.git/': Received HTTP code 407 from proxy after CONNECT",
            Code::CredentialsRefused,
            "407",
        ),
        (
            "fatal: https://x/y.git/info/refs not valid: is this a git repository?",
            Code::RepositoryNotFound,
            "is not git",
        ),
        (
            "fatal: protocol error: bad line length character: Welc",
            Code::RepositoryNotFound,
            "shell for ssh",
        ),
        (
            "This account is currently not available.\nfatal: Could not read from remote repository.",
            Code::RepositoryNotFound,
            "shell for ssh",
        ),
    ] {
        let answer = said(stderr);
        assert_eq!(code(&answer), Some(wanted.as_str()), "{stderr} {answer:?}");
        assert!(answer.unwrap_err().error().message.contains(remedy), "{stderr}");
        // What only reads has the same answer.
        assert_eq!(
            code(&fetch_answer(false, stderr)),
            Some(wanted.as_str()),
            "{stderr}"
        );
    }
}

#[test]
fn what_sounds_final_and_passes_is_tried_again() {
    for (stderr, wanted) in [
        (
            "remote: You have exceeded a secondary rate limit.\nfatal: unable to access 'https://x/': The requested URL returned error: 403",
            Code::RateLimited,
        ),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 429",
            Code::RateLimited,
        ),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 408",
            Code::RemoteUnreachable,
        ),
        (
            "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502",
            Code::RemoteUnreachable,
        ),
        // What ssh says about its own files is not what the remote said.
        (
            "Could not create directory '/data/.ssh' (Permission denied).\nssh: connect to host x port 22: Connection refused",
            Code::RemoteUnreachable,
        ),
    ] {
        let answer = said(stderr).unwrap_err();
        assert!(
            answer.is_transient() && answer.error().code == wanted,
            "{stderr} {answer:?}"
        );
    }
    let stdout = "To x\n!\tab:refs/heads/main\t[remote rejected] (pre-receive hook declined)\nDone\n";
    for hook in [
        "remote: GitLab: Internal API unreachable\n",
        "remote: GitLab: Internal API error (503)\n",
        "remote: Gitea: Internal Server Connection Error\n",
    ] {
        assert!(
            push_answer(false, stdout, hook).unwrap_err().is_transient(),
            "{hook}"
        );
    }
}

#[test]
fn the_ref_that_makes_a_branch_ambiguous_is_named() {
    let stderr =
        "error: dst refspec refs/heads/prod matches more than one\nerror: failed to push some refs to 'x'";
    assert!(is_ambiguous(stderr));
    assert_eq!(code(&said(stderr)), Some("BRANCH_CONFLICT"));
    let branch = "prod".parse().unwrap();
    let refs = "1a2b\trefs/heads/prod\n1a2b\trefs/tags/refs/heads/prod\n3c4d\trefs/tags/refs/heads/prod^{}\n";
    let Fault::Permanent(reason) = ambiguous(&branch, refs, stderr) else {
        panic!("it is final");
    };
    assert_eq!(reason.code, Code::BranchConflict);
    for words in [
        "a tag named refs/heads/prod",
        "git push URL :refs/tags/refs/heads/prod",
        "matches more than one",
    ] {
        assert!(reason.message.contains(words), "{reason}");
    }
    let refs = "1a2b\trefs/heads/prod\n1a2b\trefs/heads/refs/heads/prod\n";
    let message = ambiguous(&branch, refs, stderr).into_error().message;
    assert!(message.contains("a branch named refs/heads/prod"), "{message}");
}

#[test]
fn a_fetch_tells_what_is_wrong_with_the_mirror() {
    for (stderr, wanted) in [
        (
            "error: cannot lock ref 'refs/remotes/origin/env/prod': 'refs/remotes/origin/env' exists; cannot create 'refs/remotes/origin/env/prod'\nerror: some local refs could not be updated; try running\n 'git remote prune x' to remove any old, conflicting branches",
            Fetched::Stale,
        ),
        ("fatal: bad object refs/remotes/origin/main", Fetched::Damaged),
        (
            "error: cannot lock ref 'refs/remotes/origin/main': unable to resolve reference 'refs/remotes/origin/main': reference broken",
            Fetched::Damaged,
        ),
        (
            "fatal: mismatched algorithms: client sha1; server sha256",
            Fetched::OtherFormat("sha256".to_owned()),
        ),
        (
            "error: cannot lock ref 'refs/remotes/origin/main': is at 1 but expected 2",
            Fetched::Locked(
                "error: cannot lock ref 'refs/remotes/origin/main': is at 1 but expected 2".to_owned(),
            ),
        ),
    ] {
        assert_eq!(fetch_answer(false, stderr), Ok(wanted), "{stderr}");
    }
    let theirs = "remote: fatal: bad object refs/heads/main\nfatal: the remote end hung up unexpectedly";
    assert!(fetch_answer(false, theirs).unwrap_err().is_transient());
}
