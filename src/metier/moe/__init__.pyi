"""The public names of metier.moe, each once: type checkers read them here, `__init__.py` loads them."""

from . import inspect as inspect
from .attachment.builtin_losses import BuiltinLoss as BuiltinLoss, builtin_losses as builtin_losses
from .attachment.callback import BalancingCallback as BalancingCallback
from .attachment.handle import (
    Attachment as Attachment,
    attach as attach,
    set_selection_bias as set_selection_bias,
)
from .attachment.routers import RouterFamily as RouterFamily, router_families as router_families
from .auditing.report import Audit as Audit, RouterAudit as RouterAudit
from .auditing.run import audit as audit
from .balancing.balancer import Balancer as Balancer
from .balancing.bias_rules import quantile_bias as quantile_bias
from .balancing.potential_members import (
    POTENTIALS as POTENTIALS,
    KullbackLeibler as KullbackLeibler,
    LogBarrier as LogBarrier,
    LogCosh as LogCosh,
    LogSumExp as LogSumExp,
    Power as Power,
    PseudoHuber as PseudoHuber,
    Quadratic as Quadratic,
    Shannon as Shannon,
    Softplus as Softplus,
    Tsallis as Tsallis,
)
from .balancing.potentials import Potential as Potential
from .balancing.presets import PRESETS as PRESETS, balancer as balancer
from .balancing.rivals import (
    expert_choice as expert_choice,
    simbal_loss as simbal_loss,
    sinkhorn_route as sinkhorn_route,
    switch_loss as switch_loss,
    z_loss as z_loss,
)
from .measures.information import (
    RoutingInformation as RoutingInformation,
    composition as composition,
    routing_information as routing_information,
)
from .measures.metrics import RoutingMetrics as RoutingMetrics, routing_metrics as routing_metrics
from .measures.pictures import (
    MetricsLog as MetricsLog,
    plot_composition as plot_composition,
    plot_loads as plot_loads,
    read_metrics_log as read_metrics_log,
)
from .multilinear.accounting import Cost as Cost, activation_bytes as activation_bytes, cost_of as cost_of
from .multilinear.activations import (
    GATES as GATES,
    AlphaEntmax as AlphaEntmax,
    Entmax15 as Entmax15,
    ReluTopK as ReluTopK,
    Softmax as Softmax,
    Sparsemax as Sparsemax,
    TopK as TopK,
)
from .multilinear.blocks import MultilinearGLU as MultilinearGLU, MultilinearMLP as MultilinearMLP
from .multilinear.decay import decay_groups as decay_groups
from .multilinear.editing import (
    EditVerdict as EditVerdict,
    absorbed as absorbed,
    expert_profile as expert_profile,
    keep_if_harmless as keep_if_harmless,
    threshold_ as threshold_,
    thresholded as thresholded,
)
from .multilinear.entmax import alpha_entmax as alpha_entmax, entmax15 as entmax15, sparsemax as sparsemax
from .multilinear.fairness import GroupFairness as GroupFairness, group_fairness as group_fairness
from .multilinear.forms import FORMS as FORMS
from .multilinear.gates import Gate as Gate
from .multilinear.layer import MultilinearMoE as MultilinearMoE
from .multilinear.ranks import rank_for_budget as rank_for_budget
from .multilinear.replacing import (
    ReplacedLayer as ReplacedLayer,
    Replacement as Replacement,
    rebuild as rebuild,
    replace as replace,
)
from .multilinear.warm_start import warm_start as warm_start
from .sparse.experts import Experts as Experts
from .sparse.layer import Routing as Routing, SparseMoE as SparseMoE, TopKRouter as TopKRouter
from .sparse.upcycle import upcycle as upcycle
