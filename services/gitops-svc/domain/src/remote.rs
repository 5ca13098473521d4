//! What a remote's answer to a push or fetch means. Pure.
//!
//! Remotes say the same thing in many ways; those here were observed from git itself, GitHub, GitLab, Bitbucket, Gitea
//! and Azure DevOps.

use slipway_model::{Fault, Reason};

use crate::reason::Code;

/// The result of moving a ref, at the remote or in the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    Yes,
    /// Another push was faster: fetch, apply again, push again.
    LostRace,
}

/// A remote's own text is truncated to this length.
const MAX_TEXT: usize = 2000;

/// Another push was faster, as git, GitLab and Azure DevOps say it.
const LOST_RACE: &[&str] = &[
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
    "already been updated by another client",
];

/// A remote that cannot write anything because its machine does not let it. Checked before a lost race, since it cannot
/// lock or update a ref either.
const DISK: &[(Code, &[&str])] = &[
    (
        Code::RemoteFull,
        &[
            "no space left",
            "disk quota exceeded",
            "quota exceeded",
            "over its data quota",
            "repository is over its size",
            "exceeded its size limit",
            "size limit reached",
            "exceeds the size limit",
            "storage limit",
            "exceeded the 4gb size limit",
        ],
    ),
    (
        Code::RemoteReadOnly,
        &[
            "read-only file system",
            "archived so it is read-only",
            "repository was archived",
            "repo is archived",
            "repository is archived",
            "archived project",
            "repository is read-only",
            "repository is disabled",
            "mirror repository is read-only",
            "is marked as read-only",
            // git also says this when the disk has no space for a folder.
            "unable to create temporary object directory",
        ],
    ),
    (
        Code::PermissionDenied,
        &["insufficient permission for adding", ".lock': permission denied"],
    ),
];

/// Who may push to the branch at all. The rules about a single commit are in [`COMMIT_RULES`].
const PROTECTED: &[&str] = &[
    "protected branch",
    "protected ref",
    "gh003",
    "gh006",
    "gh013",
    "repository rule violations",
    "branch permission",
    "branch is protected",
    "is protected from",
    "can only be modified through pull requests",
    "permission denied to update branch",
    "must be made through a pull request",
    "you must use a pull request to update this branch",
    "pushes to this branch are not permitted",
];

/// Rules of forges that one commit violates and another does not, whatever they are wrapped in.
const COMMIT_RULES: &[&str] = &[
    "push cannot contain secrets",
    "contains secrets",
    "must have verified signatures",
    "commit message",
    "commit author",
    "author email",
    "file path",
    "file name",
    "file extension",
    "large files detected",
    "file size limit",
    "prohibited by the pattern",
];

/// What a forge's own hook says about our account, rather than the commits.
const RIGHTS: &[&str] = &[
    "you are not allowed to push code",
    "does not have write access",
    "user permission denied for writing",
    "genericcontribute",
    ".git denied to",
    "write access to repository not granted",
    "marked as read only",
];

/// Worth another try, although it sounds final.
const PASSES: &[&str] = &[
    "temporarily read-only",
    "please try again later",
    "try again in a",
];

/// Final answers without a hook's text, the more specific first.
const FINAL: &[(Code, &[&str])] = &[
    (
        Code::PushRefused,
        &[
            "hook declined",
            "denied by hook",
            "prereceive",
            "branch is currently checked out",
            "deny updating",
            "prohibited by",
            "denying non-fast-forward",
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
    (Code::BranchNotFound, &["couldn't find remote ref"]),
    (
        Code::RepositoryNotFound,
        &[
            "repository not found",
            "does not appear to be a git repository",
            "project you were looking for could not be found",
            "returned error: 404",
            // Moved permanently; a redirect is never followed with credentials.
            "returned error: 301",
            "returned error: 308",
            "' not found",
            "no such project",
            "tf401019",
            "cannot find repository",
        ],
    ),
    (
        Code::PermissionDenied,
        &[
            "returned error: 403",
            "not allowed to push",
            "read-only",
            "permission denied",
            "insufficient permission",
            "access denied",
            "dubious ownership",
        ],
    ),
    (Code::RepositoryNotFound, &["does not exist"]),
];

/// Reads the output of `git push --porcelain` for the one ref that was pushed.
pub fn push_answer(success: bool, stdout: &str, stderr: &str) -> Result<Moved, Fault<Reason>> {
    // <flag> TAB <from>:<to> TAB <summary> (<reason>)
    let line = stdout
        .lines()
        .find(|line| line.contains(":refs/heads/") && line.get(1..2) == Some("\t"));
    if success {
        return Ok(Moved::Yes);
    }
    let Some(line) = line else {
        return not_moved(sorted(stderr));
    };
    match line.as_bytes().first() {
        // The remote has accepted it (or had it), and git complains about something else.
        Some(b' ' | b'*' | b'=') => Ok(Moved::Yes),
        _ => {
            // The ref's own reason first: a hook may print anything.
            let reason = line.rsplit('\t').next().unwrap_or_default();
            not_moved(rejected(reason, stderr))
        }
    }
}

/// Reads the output of a fetch, which moves refs in the mirror.
pub fn fetch_answer(success: bool, stderr: &str) -> Result<Moved, Fault<Reason>> {
    if success {
        Ok(Moved::Yes)
    } else {
        not_moved(sorted_here(stderr))
    }
}

fn not_moved(why: Option<Fault<Reason>>) -> Result<Moved, Fault<Reason>> {
    why.map_or(Ok(Moved::LostRace), Err)
}

/// What a rejected ref means, from the reason next to it and what the remote printed; `None`: a lost race.
fn rejected(reason: &str, stderr: &str) -> Option<Fault<Reason>> {
    let both = format!("{reason}\n{stderr}");
    let (short, long) = (reason.to_lowercase(), both.to_lowercase());
    if any(&long, PASSES) {
        return Some(passing(&both));
    }
    // A hook's output, or the forge's rules: free text, in which only the forges' own sentences count.
    if any(&short, &["hook", "rule violations", "denied by"]) {
        let code = if any(&long, COMMIT_RULES) {
            Code::PushRefused
        } else if any(&long, PROTECTED) {
            Code::BranchProtected
        } else if any(&long, DISK[0].1) {
            Code::RemoteFull
        } else if any(&long, DISK[1].1) {
            Code::RemoteReadOnly
        } else if any(&long, RIGHTS) {
            Code::PermissionDenied
        } else {
            Code::PushRefused
        };
        return Some(no(code, &both));
    }
    if any(&short, COMMIT_RULES) {
        return Some(no(Code::PushRefused, &both));
    }
    if let Some((code, _)) = DISK.iter().find(|(_, texts)| any(&long, texts)) {
        return Some(no(*code, &both));
    }
    if any(&short, LOST_RACE) {
        return None;
    }
    match code_of(&short) {
        Some(code) => Some(no(code, &both)),
        None => sorted(&both),
    }
}

/// Reads what git printed when it failed before reporting on any ref; `None`: a lost race.
fn sorted(stderr: &str) -> Option<Fault<Reason>> {
    let lower = stderr.to_lowercase();
    if any(&lower, PASSES) {
        return Some(passing(stderr));
    }
    if let Some((code, _)) = DISK.iter().find(|(_, texts)| any(&lower, texts)) {
        return Some(no(*code, stderr));
    }
    if any(&lower, LOST_RACE) {
        return None;
    }
    Some(match code_of(&lower) {
        Some(code) => no(code, stderr),
        None => passing(stderr),
    })
}

/// As [`sorted`], for operations that write to the mirror and only read from the remote: a full disk is ours, unless
/// the remote says it is its own.
fn sorted_here(stderr: &str) -> Option<Fault<Reason>> {
    let ours: String = stderr
        .lines()
        .filter(|line| !line.trim_start().starts_with("remote:"))
        .collect::<Vec<_>>()
        .join("\n")
        .to_lowercase();
    if any(&ours, &["no space left", "disk quota exceeded"]) {
        return Some(no(Code::StorageFull, stderr));
    }
    if any(&ours, &["read-only file system"]) {
        let message = format!("data_dir cannot be written: {}", paragraph(stderr));
        return Some(Fault::unavailable(Code::Internal, message));
    }
    sorted(stderr)
}

/// Reads what git printed when it failed in an operation that does not move a ref.
pub fn fault(stderr: &str) -> Fault<Reason> {
    sorted_here(stderr).unwrap_or_else(|| {
        Fault::unavailable(
            Code::RemoteUnreachable,
            "another writer held the mirror or the branch at the same time; it is tried again",
        )
    })
}

/// Whether git printed that the remote rejected the credentials.
pub fn rejects_credentials(stderr: &str) -> bool {
    matches!(sorted(stderr), Some(Fault::Permanent(reason)) if reason.code == Code::CredentialsRefused)
}

fn passing(text: &str) -> Fault<Reason> {
    Fault::unavailable(Code::RemoteUnreachable, paragraph(text))
}

/// Whether the remote does not support omitting history or files; then all of it is fetched.
pub fn wants_it_whole(reason: &Reason) -> bool {
    let lower = reason.message.to_lowercase();
    any(
        &lower,
        &[
            "does not support shallow",
            "does not support --depth",
            "does not support --filter",
            "dumb http transport",
            "' not supported",
            "filter is not supported",
            "filtering not",
            "shallow fetches are not",
            "unsupported filter",
        ],
    )
}

/// Whether a fetch by id failed because there is no such object.
pub fn has_no_such_object(stderr: &str) -> bool {
    let lower = stderr.to_lowercase();
    any(
        &lower,
        &["not our ref", "couldn't find remote ref", "no such remote ref"],
    )
}

fn any(text: &str, texts: &[&str]) -> bool {
    texts.iter().any(|wanted| text.contains(wanted))
}

fn code_of(lower: &str) -> Option<Code> {
    if any(lower, PROTECTED) {
        return Some(Code::BranchProtected);
    }
    if any(lower, RIGHTS) {
        return Some(Code::PermissionDenied);
    }
    FINAL
        .iter()
        .find(|(_, texts)| any(lower, texts))
        .map(|(code, _)| *code)
}

/// A final answer: what it means, what to do about it, and the remote's own text.
fn no(code: Code, text: &str) -> Fault<Reason> {
    let said = paragraph(text);
    Fault::refused(
        code,
        match remedy(code) {
            "" => said,
            remedy => format!("{remedy}; git says: {said}"),
        },
    )
}

/// What it means and what to do about it.
fn remedy(code: Code) -> &'static str {
    match code {
        Code::BranchProtected => {
            "the branch is protected: let this service's account push to it, or configure pull_requests for the repository"
        }
        Code::PermissionDenied => {
            "the remote does not allow this service's account to write: give it write access"
        }
        Code::CredentialsRefused => "the remote rejected the credentials: check the repository's credentials",
        Code::BranchNotFound => "the remote does not have the branch: create it, or ask for another one",
        Code::RepositoryNotFound => {
            "the repository does not exist, or is hidden from this service's account: check the repository's url and credentials"
        }
        Code::RemoteFull => "the remote is full: free some space there, or raise its quota",
        Code::RemoteReadOnly => {
            "the remote is read-only: unarchive it, make its disk writable, or free some space there"
        }
        Code::StorageFull => "this service's data_dir is full: free some space, or give it a larger volume",
        Code::PushRefused => "a hook or rule of the remote rejected the commit: change what it objects to",
        _ => "",
    }
}

/// A remote's own text, made fit for an error: one paragraph, printable, its end kept if it is too long.
pub fn paragraph(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let line = line.trim().trim_start_matches("remote:").trim();
            line.chars().filter(|c| !c.is_control()).collect::<String>()
        })
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
        .collect();
    let text = lines.join("; ");
    let beyond = text.chars().count().saturating_sub(MAX_TEXT);
    if text.is_empty() {
        "no error message was given".to_owned()
    } else if beyond > 0 {
        format!("…{}", text.chars().skip(beyond).collect::<String>())
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
