"""TRL's PPO for test_trl.py: `trl_ppo_peer.py FOLDER`, as trl_peer.py.

TRL 0.11 is the last whose PPO stands in functions of its trainer; `make peers` keeps it in a folder of its own.
"""

import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(sys.prefix) / "trl-0.11"))
from trl.trainer.ppo_trainer import FixedKLController, PPOConfig, PPOTrainer


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    with np.load(folder / "arrays.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    settings = {name: arrays[name].item() for name in ("gamma", "lam", "cliprange", "cliprange_value")}
    trainer = PPOTrainer.__new__(PPOTrainer)  # its methods alone: a trainer wants a model with a tokenizer
    trainer.config = PPOConfig(vf_coef=1.0, **settings)
    trainer.kl_ctl = FixedKLController(arrays["beta"].item())
    mask = arrays["completion_mask"]
    found = {}
    for name in ("kl", "mse"):
        trainer.config.kl_penalty = name
        found[name] = trainer._kl_penalty(arrays["logprobs"], arrays["ref_logprobs"])
    trainer.config.kl_penalty = "kl"
    rewards, _, _ = trainer.compute_rewards(arrays["scores"], arrays["old_logprobs"], arrays["ref_logprobs"], mask)
    _, advantages, returns = trainer.compute_advantages(arrays["old_values"], rewards, mask)
    found |= {"rewards": rewards * mask, "whitened": advantages * mask, "returns": returns * mask}
    logprobs, values = (arrays[name].clone().requires_grad_() for name in ("logprobs", "values"))
    policy_loss, value_loss, stats = trainer.loss(
        arrays["old_logprobs"],
        arrays["old_values"],
        torch.zeros(*mask.shape, 2),
        values,
        logprobs,
        mask,
        advantages,
        returns,
    )
    (policy_loss + value_loss).backward()
    found |= {"policy_loss": policy_loss, "value_loss": value_loss}
    found |= {"policy_gradient": logprobs.grad, "value_gradient": values.grad}
    found |= {"clip_fraction": stats["policy/clipfrac"], "value_clip_fraction": stats["val/clipfrac"]}
    np.savez(folder / "found_ppo.npz", **{name: value.detach().numpy() for name, value in found.items()})


if __name__ == "__main__":
    main()
