"""Real-time diffusion policies: the denoising steps solved in parallel, without changing the answer."""

from para_policy import samplers as samplers
from para_policy.denoiser import Denoiser as Denoiser
from para_policy.formats.native import load_policy as load_policy
from para_policy.noise import Noise as Noise
from para_policy.policies.diffusion_policy import DiffusionPolicy as DiffusionPolicy
from para_policy.process import Process as Process
