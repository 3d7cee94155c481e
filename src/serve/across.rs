//! Requests across nodes: this node's gateway sends some to others, and answers those of others.
//!
//! | part | what |
//! |---|---|
//! | `offers` | tells each other node, by a stream that it opens, which ready pods there are here |
//! | `heard` | hears the same of each other node, and has it in the gateway |
//! | `forward` | a node as the gateway calls it |
//! | `visits` | what other nodes ask for: the stream, a slot, an answer |
//! | `wire` | how all of that is said |

mod forward;
mod heard;
mod offers;
mod visits;
mod wire;

use std::sync::Arc;

use super::{context::NodeContext, member::Member};
pub(crate) use visits::Visits;

/// What other nodes may ask of the gateway of this one.
pub(crate) fn visits(context: &NodeContext, member: &Member) -> Arc<Visits> {
    let gateway = context.node.edge.gateway().clone();
    let (members, departure) = (Arc::clone(member.members()), member.departure());
    let control = context.node.control.handle();
    Visits::new(gateway, members, departure, control.clone())
}

/// Hears of other nodes what they have, and sends requests there, until the process ends.
pub(crate) async fn hear(context: NodeContext, member: Arc<Member>) {
    let threads = context.node.threads.handles().to_vec();
    let client = Arc::new(member.client().on(threads));
    let edge = Arc::clone(&context.node.edge);
    heard::follow(member.members(), &member.local.name, &edge, &client).await;
}
