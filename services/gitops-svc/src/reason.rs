//! Why something is as it is: a code for programs, and words for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why something is as it is, for programs. Pinned: part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The kustomization does not list the image.
    ImageNotFound,
    /// No such folder, or no kustomization in it.
    FileNotFound,
    /// The file is not what it should be, or too large.
    FileInvalid,
    /// The edit could not be done without touching something else.
    EditUnsafe,
    /// Somebody changed the same image since.
    ChangedSince,
    BranchNotFound,
    RepositoryNotFound,
    /// The remote knows us and does not let us write.
    PermissionDenied,
    /// The remote does not know us.
    CredentialsRefused,
    BranchProtected,
    /// A hook of the remote declined.
    PushRefused,
    /// The remote has no room left.
    RemoteFull,
    /// The remote takes no writes from anybody.
    RemoteReadOnly,
    /// This service's own `data_dir` has no room left.
    StorageFull,
    RemoteUnreachable,
    DeadlineExceeded,
    Cancelled,
    /// This service's configuration no longer has the repository.
    RepositoryNotConfigured,
    /// Somebody closed the pull request without merging it.
    PullRequestClosed,
    /// The pull request's branch holds what is not ours.
    PullRequestConflict,
    /// GitHub does not take the pull request.
    PullRequestRefused,
    /// GitHub has no such repository, or does not show it to us.
    PullRequestNotFound,
    /// GitHub asks us to wait.
    RateLimited,
    /// Something here went wrong: a full disk, a damaged mirror.
    Internal,
}

impl Code {
    /// As it stands in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageNotFound => "IMAGE_NOT_FOUND",
            Self::FileNotFound => "FILE_NOT_FOUND",
            Self::FileInvalid => "FILE_INVALID",
            Self::EditUnsafe => "EDIT_UNSAFE",
            Self::ChangedSince => "CHANGED_SINCE",
            Self::BranchNotFound => "BRANCH_NOT_FOUND",
            Self::RepositoryNotFound => "REPOSITORY_NOT_FOUND",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::CredentialsRefused => "CREDENTIALS_REFUSED",
            Self::BranchProtected => "BRANCH_PROTECTED",
            Self::PushRefused => "PUSH_REFUSED",
            Self::RemoteFull => "REMOTE_FULL",
            Self::RemoteReadOnly => "REMOTE_READ_ONLY",
            Self::StorageFull => "STORAGE_FULL",
            Self::RemoteUnreachable => "REMOTE_UNREACHABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Cancelled => "CANCELLED",
            Self::RepositoryNotConfigured => "REPOSITORY_NOT_CONFIGURED",
            Self::PullRequestClosed => "PULL_REQUEST_CLOSED",
            Self::PullRequestConflict => "PULL_REQUEST_CONFLICT",
            Self::PullRequestRefused => "PULL_REQUEST_REFUSED",
            Self::PullRequestNotFound => "PULL_REQUEST_NOT_FOUND",
            Self::RateLimited => "RATE_LIMITED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// A code, and the same for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: Code,
    pub message: String,
}

impl Reason {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
