"""IFedNCF: IFedRec with FedNCF's heads; item texts are mapped to embeddings."""

from common.methods.card import Card
from common.methods.ipfedrec import PAPER, IFedRecSettings, published, search
from common.methods.search import LOCAL, SMALL_HEADS, Number

CARD = Card(
    name="ifedncf",
    title="IFedNCF",
    kind="trained",
    server="server_app.methods.ifedncf:IFedNCF",
    node="client_app.methods.ifedncf:IFedNCF",
    paper=PAPER,
    settings=IFedRecSettings,
    fixed={"head": "mlp"},
    # 31.4 on validation items of amazon-office, seed 0; the others 12.6 to 31.3; 4 of 16 trials
    # overflowed. Small heads: a user keeps 2 d² numbers.
    tuned={
        "dim": 32,
        "head_lr": 1.0,
        "ifedncf.fit_steps": 600,
        "ifedncf.pull": 1.0,
        "ifedncf.fit_every": 10,
    },
    # d = 64 as MDiffFR gives it: heads have 2 d² + 4 d + 1 numbers per user, and λ = 1 does not
    # overshoot there. These nodes step the head first and then the items, where IFedNCF's code
    # steps both at once.
    published={
        **published("ifedncf"),
        "dim": 64,
        "head_lr": 0.5,
        "item_lr": 40.0,
        "ifedncf.pull": 1.0,
    },
    search={**LOCAL, **SMALL_HEADS, "item_lr": Number(0.5, 60), **search("ifedncf")},
    comparisons={"table2": ("ifedncf",), "table2:paper": ("ifedncf:paper",)},
    order=40,
)
