//! The gRPC APIs, DeployService and ReleaseService: the only module that uses their messages.

mod convert;
mod deployments;
mod releases;

use futures::stream::BoxStream;
use tonic::{Response, Status};

pub use deployments::DeployApi;
pub use releases::{ReleaseApi, Releases};

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;
