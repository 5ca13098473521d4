//! The words of remotes: git's own, and those of forges.

use crate::reason::Code;

/// Another push was faster, as git, GitLab and Azure DevOps say it.
pub(super) const LOST_RACE: &[&str] = &[
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
    // The repository was made again with another kind of object ids, which the next fetch shows.
    "does not support this repository's hash algorithm",
];

/// Another ref of the remote has a name that the branch's cannot stand beside. git then cannot lock the branch either.
pub(super) const NAME_TAKEN: &[&str] = &[
    "exists; cannot create",
    "' at the same time",
    "directory/file conflict",
    "directory file conflict",
    "there are still refs under",
    "there is a non-empty directory",
    "there are still logs under",
    "conflicts with an existing",
    "only differ in casing",
    "matches more than one",
];

/// A remote that cannot write anything because its machine does not let it. Checked before a lost race, since it cannot
/// lock or update a ref either.
pub(super) const DISK: &[(Code, &[&str])] = &[
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
pub(super) const PROTECTED: &[&str] = &[
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
pub(super) const COMMIT_RULES: &[&str] = &[
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
pub(super) const RIGHTS: &[&str] = &[
    "you are not allowed to push code",
    "does not have write access",
    "user permission denied for writing",
    "genericcontribute",
    ".git denied to",
    "write access to repository not granted",
    "marked as read only",
];

/// What ssh adds about its own files, whatever the remote said.
pub(super) const BESIDES: &[&str] = &[
    "could not create directory",
    "failed to add the host to the list of known hosts",
];

/// Worth another try, although it sounds final.
pub(super) const PASSES: &[&str] = &[
    "temporarily read-only",
    "temporarily unavailable",
    "please try again later",
    "try again in a",
    // A forge's hook that cannot reach the forge.
    "internal api unreachable",
    "internal api error (5",
    "failed to contact internal api",
    "api is not accessible",
    "internal server connection error",
    "currently under maintenance",
    "maintenance mode",
];

/// The forge asks us to wait, with any status.
pub(super) const RATE_LIMITED: &[&str] = &[
    "exceeded a secondary rate limit",
    "rate limit exceeded",
    "too many requests",
];

/// What answers at the repository's address is not git.
pub(super) const NOT_GIT: &[&str] = &[
    "not valid: is this a git repository",
    "invalid server response",
    "bad line length character",
    "wrong version number",
    "account is currently not available",
    "interactive git shell is not enabled",
    "git-upload-pack: command not found",
    "git-receive-pack: command not found",
    "git-upload-pack: not found",
    "git-receive-pack: not found",
];

/// Final answers without a hook's text, the more specific first.
pub(super) const FINAL: &[(Code, &[&str])] = &[
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
            "shallow update not allowed",
            "missing necessary objects",
            "pack exceeds maximum allowed size",
            "fsck error",
            "funny refname",
            "inconsistent aliased update",
            // receive.denyCurrentBranch=updateInstead
            "working directory has",
            "could not update working tree",
            "up-to-date check failed",
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
            "permission denied (",
            "too many authentication failures",
            "host key verification failed",
            "unable to negotiate with",
            "bad credentials",
        ],
    ),
    (
        Code::CertificateRefused,
        &[
            "ssl certificate problem",
            "certificate verification failed",
            "certificate verify failed",
            "no alternative certificate subject name",
            "does not match target host name",
            "error setting certificate",
        ],
    ),
    (Code::BranchNotFound, &["couldn't find remote ref"]),
    (
        Code::RepositoryNotFound,
        &[
            "repository not found",
            "does not appear to be a git repository",
            "project you were looking for could not be found",
            "' not found",
            "no such project",
            "tf401019",
            "cannot find repository",
        ],
    ),
    (Code::RepositoryNotFound, NOT_GIT),
    (
        Code::PermissionDenied,
        &[
            "not allowed to push",
            "read-only",
            "permission denied",
            "insufficient permission",
            "access denied",
            "dubious ownership",
        ],
    ),
];

/// What a status of HTTP means that git passes on without the server's words. None of the others is final.
pub(super) fn status(status: u16) -> Option<Code> {
    Some(match status {
        // 407: a proxy in between wants a password.
        401 | 407 => Code::CredentialsRefused,
        402 | 403 => Code::PermissionDenied,
        413 => Code::PushRefused,
        // A redirect is never followed with credentials. The others: nothing that is there speaks git.
        301 | 302 | 303 | 307 | 308 | 404 | 410 | 400 | 405 | 406 | 415 | 451 | 501 | 505 => {
            Code::RepositoryNotFound
        }
        429 => Code::RateLimited,
        _ => return None,
    })
}

/// The mirror's own refs, which a crash of the machine has damaged.
pub(super) const DAMAGED: &[&str] = &["bad object refs/", "reference broken", "ignoring broken ref"];

/// The mirror has a branch that no longer exists, and whose name is a folder of another one's, or the reverse.
pub(super) const STALE: &[&str] = &["exists; cannot create", "old, conflicting branches"];

/// The remote does not support omitting history or files.
pub(super) const WANTS_IT_WHOLE: &[&str] = &[
    "does not support shallow",
    "does not support --depth",
    "does not support --filter",
    "dumb http transport",
    "' not supported",
    "filter is not supported",
    "filtering not",
    "shallow fetches are not",
    "unsupported filter",
    // It omits files, and then does not serve them individually: an old protocol.
    "request for unadvertised object",
];
