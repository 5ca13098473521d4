//! What a remote's answer to a push or fetch means. Pure.
//!
//! Remotes say the same thing in many ways; those here were observed from git itself, GitHub, GitLab, Bitbucket, Gitea
//! and Azure DevOps.

mod words;

use slipway_model::{BranchName, Fault, Reason};

use self::words::{
    BESIDES, COMMIT_RULES, DAMAGED, DISK, FINAL, LOST_RACE, NAME_TAKEN, NOT_GIT, PASSES, PROTECTED,
    RATE_LIMITED, RIGHTS, STALE, WANTS_IT_WHOLE,
};
use crate::reason::Code;

/// The result of moving a ref at the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    Yes,
    /// Another push was faster, in the remote's words: fetch, apply again, push again.
    LostRace(String),
}

/// The result of moving refs in the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    Yes,
    /// Another git holds a lock of the mirror, in git's words.
    Locked(String),
    /// The mirror still has a branch that no longer exists and is in the way: it must be removed first.
    Stale,
    /// The mirror's own refs are damaged.
    Damaged,
    /// The remote's objects have other ids than the mirror's: `sha1` or `sha256`.
    OtherFormat(String),
}

/// A remote's own text is truncated to this length.
const MAX_TEXT: usize = 2000;

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
        return not_moved(sorted(stderr), stderr);
    };
    match line.as_bytes().first() {
        // The remote has accepted it (or had it), and git complains about something else.
        Some(b' ' | b'*' | b'=') => Ok(Moved::Yes),
        _ => {
            // The ref's own reason first: a hook may print anything.
            let reason = line.rsplit('\t').next().unwrap_or_default();
            not_moved(rejected(reason, stderr), &format!("{reason}\n{stderr}"))
        }
    }
}

/// Reads the output of a fetch, which moves refs in the mirror.
pub fn fetch_answer(success: bool, stderr: &str) -> Result<Fetched, Fault<Reason>> {
    if success {
        return Ok(Fetched::Yes);
    }
    let ours = ours(stderr);
    if let Some((_, format)) = ours
        .split_once("mismatched algorithms: client ")
        .and_then(|(_, rest)| {
            let line = rest.lines().next()?;
            line.split_once("; server ")
        })
    {
        return Ok(Fetched::OtherFormat(format.trim().to_owned()));
    }
    if any(&ours, DAMAGED) {
        return Ok(Fetched::Damaged);
    }
    if any(&ours, STALE) {
        return Ok(Fetched::Stale);
    }
    match sorted_here(stderr) {
        Some(fault) => Err(fault),
        None => Ok(Fetched::Locked(paragraph(stderr))),
    }
}

/// What the mirror's own git printed, in lower case, without what the remote said.
fn ours(stderr: &str) -> String {
    let lines = stderr.lines();
    let lines: Vec<&str> = lines
        .filter(|line| !line.trim_start().starts_with("remote:"))
        .collect();
    lines.join("\n").to_lowercase()
}

fn not_moved(why: Option<Fault<Reason>>, said: &str) -> Result<Moved, Fault<Reason>> {
    why.map_or_else(|| Ok(Moved::LostRace(paragraph(said))), Err)
}

/// What a rejected ref means, from the reason next to it and what the remote printed; `None`: a lost race.
fn rejected(reason: &str, stderr: &str) -> Option<Fault<Reason>> {
    let both = format!("{reason}\n{stderr}");
    let (short, long) = (reason.to_lowercase(), both.to_lowercase());
    if let Some(fault) = passes(&both, &long) {
        return Some(fault);
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
    if any(&long, NAME_TAKEN) {
        return Some(no(Code::BranchConflict, &both));
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
    let lines = stderr.to_lowercase();
    let lines = lines
        .lines()
        .filter(|line| !BESIDES.iter().any(|words| line.starts_with(words)));
    let lower = lines.collect::<Vec<_>>().join("\n");
    if let Some(fault) = passes(stderr, &lower) {
        return Some(fault);
    }
    if let Some((code, _)) = DISK.iter().find(|(_, texts)| any(&lower, texts)) {
        return Some(no(*code, stderr));
    }
    if any(&lower, NAME_TAKEN) {
        return Some(no(Code::BranchConflict, stderr));
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
    let ours = ours(stderr);
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

/// What is worth another try, although it sounds final.
fn passes(text: &str, lower: &str) -> Option<Fault<Reason>> {
    if any(lower, RATE_LIMITED) || http_status(lower).and_then(words::status) == Some(Code::RateLimited) {
        return Some(Fault::unavailable(Code::RateLimited, paragraph(text)));
    }
    any(lower, PASSES).then(|| passing(text))
}

fn passing(text: &str) -> Fault<Reason> {
    Fault::unavailable(Code::RemoteUnreachable, paragraph(text))
}

/// The status of HTTP that git reports.
fn http_status(lower: &str) -> Option<u16> {
    let after = ["returned error: ", "rpc failed; http ", "received http code "]
        .iter()
        .find_map(|words| Some(lower.split_once(words)?.1))?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Whether the remote does not support omitting history or files; then all of it is fetched.
pub fn wants_it_whole(reason: &Reason) -> bool {
    any(&reason.message.to_lowercase(), WANTS_IT_WHOLE)
}

/// The answer for a branch whose full name fits other refs of the remote as well, which git refuses to push. `refs` is
/// what `git ls-remote` prints for that name.
pub fn ambiguous(branch: &BranchName, refs: &str, said: &str) -> Fault<Reason> {
    let full = format!("refs/heads/{branch}");
    let others: Vec<&str> = refs
        .lines()
        .filter_map(|line| Some(line.split_once('\t')?.1.trim()))
        .filter(|name| *name != full && !name.ends_with("^{}"))
        .collect();
    let kind = |name: &&str| match (name.strip_prefix("refs/tags/"), name.strip_prefix("refs/heads/")) {
        (Some(tag), _) => format!("a tag named {tag}"),
        (_, Some(branch)) => format!("a branch named {branch}"),
        _ => format!("a ref named {name}"),
    };
    let found = match others.as_slice() {
        [] => "another ref of that name".to_owned(),
        others => others.iter().map(kind).collect::<Vec<_>>().join(" and "),
    };
    let how = others.first().map_or_else(
        || "delete or rename it".to_owned(),
        |name| format!("delete it (git push URL :{name}) or rename it"),
    );
    Fault::refused(
        Code::BranchConflict,
        format!(
            "the remote has {found} beside the branch {branch}, so git does not push to either: {how}; git says: {}",
            paragraph(said)
        ),
    )
}

/// Whether a push failed because other refs of the remote fit the branch's full name; then [`ambiguous`] names them.
pub fn is_ambiguous(stderr: &str) -> bool {
    stderr.contains("matches more than one")
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
    let found = FINAL.iter().find(|(_, texts)| any(lower, texts));
    found
        .map(|(code, _)| *code)
        .or_else(|| http_status(lower).and_then(words::status))
        .or_else(|| {
            lower
                .contains("does not exist")
                .then_some(Code::RepositoryNotFound)
        })
}

/// A final answer: what it means, what to do about it, and the remote's own text.
fn no(code: Code, text: &str) -> Fault<Reason> {
    let said = paragraph(text);
    Fault::refused(
        code,
        match remedy(code, &text.to_lowercase()) {
            "" => said,
            remedy => format!("{remedy}; git says: {said}"),
        },
    )
}

/// What it means and what to do about it.
fn remedy(code: Code, lower: &str) -> &'static str {
    match code {
        Code::CredentialsRefused if lower.contains("host key verification failed") => {
            "the remote's host key is not known: check that the host is the right one, and put its key into known_hosts_file"
        }
        Code::CredentialsRefused if lower.contains("unable to negotiate with") => {
            "the remote and this machine have no ssh algorithm in common: enable one that both support"
        }
        Code::CertificateRefused => {
            "the remote's certificate is not trusted: renew it, or give the authority that signed it as the repository's ca_file"
        }
        Code::BranchConflict => {
            "the remote has another branch whose name is a folder of this one's, or the reverse: delete or rename one of them"
        }
        Code::PushRefused if lower.contains("shallow update not allowed") => {
            "the remote lacks the history before its branch: fetch it there, or allow receive.shallowUpdate"
        }
        Code::PushRefused if lower.contains("missing necessary objects") => {
            "the remote's repository is incomplete: repair it, git fsck shows what it lacks"
        }
        Code::RepositoryNotFound if any(lower, NOT_GIT) => {
            "what answers at the repository's url is not git: check the url, and the account's shell for ssh"
        }
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
