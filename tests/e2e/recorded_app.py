"""A node's app that also keeps every answer, as the bytes that leave the node.

A test puts it into a copy of the app, beside the node's own, and names it as the ClientApp.
"""

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto

from client_app.app import app as own

FOLDER = "left"


class _Recorded(ClientApp):
    def __call__(self, message: Message, context: Context) -> Message:
        reply = own(message, context)
        folder = Path(str(context.node_config["state-dir"])).parent / FOLDER
        folder.mkdir(exist_ok=True)
        content = message_to_proto(reply).SerializeToString()
        (folder / message.metadata.message_id).write_bytes(content)
        return reply


app = _Recorded()
