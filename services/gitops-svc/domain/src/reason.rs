//! The codes of the service's reasons.

/// The code of a [`Reason`](slipway_model::Reason). Pinned: part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The kustomization does not list the image.
    ImageNotFound,
    /// No such folder, or no kustomization in it.
    FileNotFound,
    /// The file is not what it should be, or too large.
    FileInvalid,
    /// The edit could not be done without touching something else.
    EditUnsafe,
    /// The same image has been changed since.
    ChangedSince,
    BranchNotFound,
    RepositoryNotFound,
    /// The remote accepts the credentials and does not allow writing.
    PermissionDenied,
    /// The remote rejects the credentials.
    CredentialsRefused,
    /// The remote's certificate is not trusted.
    CertificateRefused,
    BranchProtected,
    /// Another ref of the remote keeps git from writing the branch.
    BranchConflict,
    /// A hook of the remote declined.
    PushRefused,
    /// The remote is full.
    RemoteFull,
    /// The remote is read-only for everyone.
    RemoteReadOnly,
    /// This service's own `data_dir` is full.
    StorageFull,
    RemoteUnreachable,
    DeadlineExceeded,
    Cancelled,
    /// This service's own configuration does not have the repository any more.
    RepositoryNotConfigured,
    /// The pull request was closed without being merged.
    PullRequestClosed,
    /// The pull request's branch contains commits that are not ours.
    PullRequestConflict,
    /// GitHub rejects the pull request.
    PullRequestRefused,
    /// GitHub has no such repository, or does not show it to us.
    PullRequestNotFound,
    /// GitHub asks us to wait.
    RateLimited,
    /// The commit is on no branch of the repository.
    CommitNotFound,
    /// A base or file outside the repository.
    OutsideRepository,
    /// kustomize or Helm cannot render the folder.
    RenderFailed,
    /// There is no kustomize 5 here.
    KustomizeMissing,
    /// A local problem: a full disk, a damaged mirror.
    Internal,
}

impl Code {
    /// As used in the API.
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
            Self::CertificateRefused => "CERTIFICATE_REFUSED",
            Self::BranchProtected => "BRANCH_PROTECTED",
            Self::BranchConflict => "BRANCH_CONFLICT",
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
            Self::CommitNotFound => "COMMIT_NOT_FOUND",
            Self::OutsideRepository => "OUTSIDE_REPOSITORY",
            Self::RenderFailed => "RENDER_FAILED",
            Self::KustomizeMissing => "KUSTOMIZE_MISSING",
            Self::Internal => "INTERNAL",
        }
    }
}

impl From<Code> for String {
    fn from(code: Code) -> Self {
        code.as_str().to_owned()
    }
}

/// To compare a reason's code with the known ones; an older event may have another.
impl PartialEq<Code> for String {
    fn eq(&self, code: &Code) -> bool {
        self == code.as_str()
    }
}
