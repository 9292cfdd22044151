from __future__ import annotations
import cv2, numpy as np

W = 320


def analysis_size(h, w, long=W):
    k = long / max(h, w)
    return max(32, round(w * k)), max(32, round(h * k))


def small_grey(f, size):
    s = cv2.resize(f, size, interpolation=cv2.INTER_AREA)
    if s.dtype == np.uint16:
        s = (s >> 8).astype(np.uint8)
    return cv2.cvtColor(s, cv2.COLOR_RGB2GRAY)


def dis(a, b, preset=cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, sp=True):
    d = cv2.DISOpticalFlow_create(preset)
    d.setUseSpatialPropagation(sp)
    return d.calc(a, b, None)


def grid(h, w):
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    return np.dstack([x, y])


def apply(A, g):
    return cv2.transform(g, A[:2].astype(np.float32))


def sample(f, pos):
    return cv2.remap(f, pos, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def texture(g):
    e = np.sqrt(np.maximum(cv2.GaussianBlur(cv2.cornerMinEigenVal(g, 5), (0, 0), 2), 0))
    return e / (e + np.median(e) + 1e-6)


def fit_affine(flow, weight, iters=15):
    h, w = flow.shape[:2]
    g = grid(h, w)[4::8, 4::8].reshape(-1, 2).astype(np.float64)
    f = flow[4::8, 4::8].reshape(-1, 2).astype(np.float64)
    w0 = weight[4::8, 4::8].ravel().astype(np.float64) + 1e-6
    c = np.array([(w - 1) / 2, (h - 1) / 2])
    s = max(h, w) / 2
    X = np.column_stack([(g - c) / s, np.ones(len(g))])
    P = np.zeros((3, 2))
    P[2] = np.median(f, 0)
    for k in range(iters):
        r = np.linalg.norm(f - X @ P, axis=1)
        sc = max(0.05, 1.5 * np.median(r))
        ww = w0 / (1 + (r / sc) ** 2) ** 2
        Xw = X * ww[:, None]
        P = np.linalg.solve(X.T @ Xw + 1e-6 * np.eye(3) * ww.sum(), Xw.T @ f)
    M = np.eye(3)
    B = P[:2].T / s
    M[:2, :2] += B
    M[:2, 2] = P[2] - B @ c
    return M


def velocity(greys):
    if len(greys) < 2:
        return np.zeros((*greys[0].shape, 2), np.float32)
    return np.median(np.stack([dis(a, b) for a, b in zip(greys[:-1], greys[1:])]), 0).astype(np.float32)


def smoothstep(x, lo, hi):
    t = np.clip((x - lo) / (hi - lo), 0, 1)
    return t * t * (3 - 2 * t)


def consistency(f, b, g, lo=0.5, hi=2.0):
    e = f + sample(b, g + f)
    e = np.sqrt((e**2).sum(-1))
    rel = 0.05 * np.sqrt((f**2).sum(-1))
    return (1 - smoothstep(e - rel, lo, hi)).astype(np.float32)
