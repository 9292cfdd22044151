from __future__ import annotations
import cv2, numpy as np
from splice.models.protocol import ModelSpec, Rendering
from splice.models.motion import *


class Opt:
    long = 320
    mid_long = 320
    dloc = 5.0
    dcam = 0.55
    thr = 0.15
    blur = 2.0
    bump = 0.0
    feather = 6.0
    force = None
    sharp = 1.0


class FlowMorph:
    spec = ModelSpec("flow_morph", "1", False)

    def __init__(self, o=None):
        self.o = o or Opt()

    def render(self, guide, settings):
        a = Analysis(guide, self.o)
        return Rendering(a.frames(), {"relatedness": a.rel, "method": a.method})


def around(A, B):
    return A @ B


class Analysis:
    def __init__(s, gd, o):
        s.gd, s.o = gd, o
        H, Wd = gd.left.shape[1:3]
        s.size = analysis_size(H, Wd, o.long)
        w, h = s.size
        s.g = grid(h, w)
        N = s.N = gd.gap_frames + 1
        L = [small_grey(f, s.size) for f in gd.left[-7:]]
        R = [small_grey(f, s.size) for f in gd.right[:7]]
        s.vL = velocity(L)
        s.vR = velocity(R)
        s.cL = fit_affine(s.vL, texture(L[-1]))
        s.cR = fit_affine(s.vR, texture(R[0]))
        I = np.eye(3)
        vl, vr = s.cL - I, s.cR - I
        cands = {"0": I, "avg": I + N * (vl + vr) / 2, "sat": I + 0.55 * N * (1 - np.exp(-1 / 0.55 * 0.5)) * (vl + vr)}
        best = None
        s.scores = {}
        for k, A in cands.items():
            r = s.align(L[-1], R[0], A)
            s.scores[k] = round(r[0], 3)
            if o.force and k != o.force:
                continue
            if best is None or r[0] > best[0] + 0.02:
                best = (*r, A, k)
        # refine
        A = best[5]
        for _ in range(1):
            C = I + 0.5 * (A - I)
            M = fit_affine(best[1], best[3] * texture(best[7] if len(best) > 7 else L[-1]))
            A2 = A @ np.linalg.inv(C) @ M @ C
            r = s.align(L[-1], R[0], A2)
            s.scores["ref"] = round(r[0], 3)
            if r[0] > best[0]:
                best = (*r, A2, best[6])
                A = A2
        s.rel, F, G, cF, cG, s.A, k = best[:7]
        s.method = {"0": "morph"}.get(k, "extrapolate and morph")
        s.related = s.rel > o.thr
        if not s.related:
            s.method = "dissolve"
        C = I + 0.5 * (s.A - I)
        # local velocity in mid frame
        lvL = s.vL - (apply(s.cL, s.g) - s.g)
        lvR = s.vR - (apply(s.cR, s.g) - s.g)
        s.Cm = C
        lvL = sample(lvL, apply(np.linalg.inv(C), s.g))
        lvR = sample(lvR, apply(s.A @ np.linalg.inv(C), s.g))
        s.ML, s.EL, s.TL = s.fields(F, cF, lvL)
        s.MR, s.ER, s.TR = s.fields(G, cG, -lvR)
        s.cF, s.cG = cF, cG

    def align(s, l, r, A):
        I = np.eye(3)
        C = I + 0.5 * (A - I)
        Ci = np.linalg.inv(C)
        pl, pr = apply(Ci, s.g), apply(A @ Ci, s.g)
        lm, rm = sample(l, pl), sample(r, pr)
        F, G = dis(lm, rm), dis(rm, lm)
        v = inside(pl, l.shape, 0) * inside(pr, l.shape, 0)
        cF = consistency(F, G, s.g) * v
        cG = consistency(G, F, s.g) * v
        return float((cF.mean() + cG.mean()) / 2), F, G, cF, cG

    def fields(s, F, c, lv):
        b = lambda z: cv2.GaussianBlur(z, (0, 0), s.o.blur)
        cs = b(c)
        M = b(F * c[..., None]) / (cs[..., None] + 1e-3)
        gte = smoothstep(cs, 0.1, 0.6)[..., None].astype(np.float32)
        return M * gte, lv * (1 - gte), (lv - M / s.N) * gte

    def frames(s):
        gd = s.gd
        N = s.N
        l, r = gd.left[-1], gd.right[0]
        for i in range(1, N):
            pl, pr, al = s.maps(i)
            yield compose(
                l,
                r,
                s.full(pl, l),
                s.full(pr, r),
                cv2.resize(al, (l.shape[1], l.shape[0]), interpolation=cv2.INTER_LINEAR),
            )

    def full(s, p, f):
        H, Wd = f.shape[:2]
        w, h = s.size
        k = np.float32([Wd / w, H / h])
        return cv2.resize((p + np.float32(0.5)) * k - np.float32(0.5), (Wd, H), interpolation=cv2.INTER_LINEAR)

    def maps(s, i):
        N, o, I = s.N, s.o, np.eye(3)
        j = N - i
        t = i / N
        sl = float(o.dloc * (1 - np.exp(-i / o.dloc)))
        sr = float(o.dloc * (1 - np.exp(-j / o.dloc)))
        if s.related:
            Ct = I + t * (s.A - I)
            P = apply(s.Cm @ np.linalg.inv(Ct), s.g)
            bl = float(i * np.exp(-i / o.dloc) * o.bump)
            br = float(j * np.exp(-j / o.dloc) * o.bump)
            dl = t * s.ML + sl * s.EL + bl * s.TL
            dr = (1 - t) * s.MR + sr * s.ER + br * s.TR
            ql, qr = P, P
            for _ in range(3):
                ql = P - sample(dl, ql)
                qr = P - sample(dr, qr)
            pl = apply(np.linalg.inv(s.Cm), ql)
            pr = apply(s.A @ np.linalg.inv(s.Cm), qr)
            wl = (1 - t) * inside(pl, s.g.shape, o.feather) + 1e-3
            wr = t * inside(pr, s.g.shape, o.feather) + 1e-3
            return pl, pr, (wr / (wl + wr)).astype(np.float32)
        D = o.dcam * N
        a, b = D * (1 - np.exp(-i / D)), D * (1 - np.exp(-j / D))
        vl = s.vL - (apply(s.cL, s.g) - s.g)
        vr = s.vR - (apply(s.cR, s.g) - s.g)
        pl = apply(np.linalg.inv(I + a * (s.cL - I)), s.g - sl * vl)
        pr = apply(np.linalg.inv(I - b * (s.cR - I)), s.g + sr * vr)
        return pl, pr, np.full(s.g.shape[:2], t, np.float32)


def inside(p, shape, f):
    h, w = shape[:2]
    d = np.minimum(np.minimum(p[..., 0], w - 1 - p[..., 0]), np.minimum(p[..., 1], h - 1 - p[..., 1]))
    if f == 0:
        return (d >= -0.5).astype(np.float32)
    return np.clip(d / f + 1, 0, 1).astype(np.float32)


def compose(l, r, pl, pr, al):
    a = cv2.remap(l, pl, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    b = cv2.remap(r, pr, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    o = a + (b - a) * al[..., None]
    return np.clip(o + 0.5, 0, np.iinfo(l.dtype).max).astype(l.dtype)
