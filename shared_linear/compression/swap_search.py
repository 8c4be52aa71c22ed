"""Which inputs to add: a local search by swaps of two inputs.

A fold F (m, d) adds the inputs of a group, n to each of m groups. With the
covariance S of the inputs and C that of the outputs with the inputs, the
least-squares fit of the outputs from the m sums explains

    J = tr((F S F^T)^-1 F Q F^T),    Q = C^T C,

of their variance. To swap input a of group p with input b of group q adds
u delta^T to F, u = e_p - e_q, delta = e_b - e_a. This is a rank-two change of
A = F S F^T and of B = F Q F^T,

    A' = A + u v^T + v u^T,    v = F S delta + (delta^T S delta / 2) u,
    B' = B + u w^T + w u^T,    w = F Q delta + (delta^T Q delta / 2) u,

and with P = A^-1, G = P B P and the Woodbury identity

    J' - J = (2 c (uGv - uPw) - vPv uGu - uPu (vGv - 2 vPw))
             / (uPu vPv - c^2),    c = 1 + uPv,

where uPv stands for u^T P v. All swaps of an input are rated at once, by
products of matrices for a block of inputs. The swaps themselves are those of
Kernighan and Lin (An efficient heuristic procedure for partitioning graphs,
1970), which keep every group at its size.
"""
from __future__ import annotations

import numpy

Array = numpy.ndarray


class SwapSearch:

    """A grouping of the inputs, what it explains, and moves to a better one.

    Args:
        S: Covariance of the inputs, (d, d), positive definite.
        Q: C^T C, (d, d).
        groups: Group of each input, (d,) ints from 0 to m - 1, each as often.

    Attributes:
        groups: Group of each input.
        explained: J of the present grouping.

    """

    def __init__(self, S: Array, Q: Array, groups: Array) -> None:
        self.S = S
        self.Q = Q
        self.S_diagonal = S.diagonal().copy()
        self.Q_diagonal = Q.diagonal().copy()
        self.groups = numpy.array(groups)
        self.n_groups = int(self.groups.max()) + 1
        self.recompute()

    def recompute(self) -> None:
        """Computes all from the grouping: updates gather rounding errors."""
        groups = self.groups
        self.T = add_rows(self.S, groups)
        self.R = add_rows(self.Q, groups)
        A = add_rows(self.T.T, groups)
        B = add_rows(self.R.T, groups)
        self.P = invert(A)
        PB = self.P @ B
        self.explained = float(PB.trace())
        self.G = symmetrize(PB @ self.P)
        PT = self.P @ self.T
        E = self.G @ self.T - self.P @ self.R
        inputs = numpy.arange(len(groups))
        self.PT_own = PT[groups, inputs]
        self.E_own = E[groups, inputs]
        # Diagonals of H = T^T P T and of L = T^T G T - T^T P R - R^T P T.
        self.H_diagonal = numpy.einsum('ij,ij->j', self.T, PT)
        self.L_diagonal = (
            numpy.einsum('ij,ij->j', self.T, E)
            - numpy.einsum('ij,ij->j', self.R, PT))

    def rate(self, inputs: Array) -> Array:
        """What each swap of the given inputs would add to J.

        Args:
            inputs: k inputs.

        Returns:
            Gains, (k, d); minus infinity within a group.

        """
        a, p, q = inputs, self.groups[inputs], self.groups
        P, G, T, R = self.P, self.G, self.T, self.R
        k = len(a)
        P_rows, G_rows = P[p], G[p]
        PT_columns = (P @ T[:, a]).T
        E_columns = (G @ T[:, a] - P @ R[:, a]).T
        by_T = numpy.concatenate(
            [P_rows, G_rows, PT_columns, E_columns]) @ T
        by_R = numpy.concatenate([P_rows, PT_columns]) @ R
        PT_rows, H = by_T[:k], by_T[2 * k:3 * k]
        E_rows = by_T[k:2 * k]
        E_rows -= by_R[:k]
        L = by_T[3 * k:]
        L -= by_R[k:]

        s = self._distances(self.S, self.S_diagonal, a)
        t = self._distances(self.Q, self.Q_diagonal, a)
        uPu = P.diagonal()[p][:, None] + P.diagonal()[q] - 2 * P_rows[:, q]
        uGu = G.diagonal()[p][:, None] + G.diagonal()[q] - 2 * G_rows[:, q]
        # u^T P T delta and u^T E delta, E = G T - P R.
        uPT = (PT_rows - self.PT_own[a][:, None]
               - self.PT_own + PT_columns[:, q])
        uE = (E_rows - self.E_own[a][:, None]
              - self.E_own + E_columns[:, q])
        dHd = self.H_diagonal[a][:, None] + self.H_diagonal - 2 * H
        dLd = self.L_diagonal[a][:, None] + self.L_diagonal - 2 * L

        half_s = s / 2
        s_uPu = half_s * uPu
        c = uPT + s_uPu
        vPv = dHd + half_s * (uPT + c)
        c += 1
        # uGv - uPw and vGv - 2 vPw
        t_uPu = t * uPu
        left = uE + half_s * uGu - t_uPu / 2
        right = dLd + s * uE + half_s * (half_s * uGu) \
            - t * uPT - half_s * t_uPu
        with numpy.errstate(divide='ignore', invalid='ignore'):
            gains = (2 * c * left - vPv * uGu - uPu * right) \
                / (uPu * vPv - c * c)
        gains[p[:, None] == q] = -numpy.inf
        return gains

    @staticmethod
    def _distances(matrix, diagonal, a):
        return diagonal[a][:, None] + diagonal - 2 * matrix[a]

    def swap(self, a: int, b: int, least: float) -> bool:
        """Swaps two inputs of different groups, if that is better.

        Args:
            a: Input.
            b: Input of another group.
            least: What it must add to J.

        Returns:
            Whether they were swapped.

        """
        p, q = self.groups[a], self.groups[b]
        P, G, T, R = self.P, self.G, self.T, self.R
        eta, theta = self.S[b] - self.S[a], self.Q[b] - self.Q[a]
        v, w = T[:, b] - T[:, a], R[:, b] - R[:, a]
        s, t = eta[b] - eta[a], theta[b] - theta[a]
        v[p] += s / 2
        v[q] -= s / 2
        w[p] += t / 2
        w[q] -= t / 2

        X = numpy.empty((5, len(P)))
        Pu, Pv, Gu, Gv, Pw = X
        Pu[:] = P[p] - P[q]
        Gu[:] = G[p] - G[q]
        Pv[:], Pw[:], Gv[:] = P @ v, P @ w, G @ v
        uPu, uGu = Pu[p] - Pu[q], Gu[p] - Gu[q]
        uPv, uPw, uGv = Pv[p] - Pv[q], Pw[p] - Pw[q], Gv[p] - Gv[q]
        vPv, vPw, vGv = v @ Pv, v @ Pw, v @ Gv
        K = numpy.array([[uPu, 1 + uPv], [1 + uPv, vPv]])
        if not K[0, 0] * K[1, 1] < K[0, 1] ** 2:
            return False
        K = invert_two(K)
        # P' = P - Z^T K Z, Z = (Pu, Pv), and with it
        # G' = P' B' P' = G + X^T M X.
        inner = numpy.array([[uGu, uGv], [uGv, vGv]])
        onto_u, onto_w = numpy.array([uPu, uPv]), numpy.array([uPw, vPw])
        # P'u = (1, 0, ..) - K onto_u and P'w in the basis X.
        P_u, P_w = numpy.zeros(5), numpy.zeros(5)
        P_u[0] = P_w[4] = 1
        P_u[:2] -= K @ onto_u
        P_w[:2] -= K @ onto_w
        M = numpy.outer(P_u, P_w)
        M += M.T
        M[:2, :2] += K @ inner @ K
        M[:2, 2:4] -= K
        M[2:4, :2] -= K
        gain = 2 * (uPw - onto_u @ K @ onto_w) - (K * inner).sum()
        if not gain > least:
            return False
        self._update(a, b, X, K, M, eta, theta)
        self.explained += float(gain)
        return True

    def _update(self, a, b, X, K, M, eta, theta):
        p, q = self.groups[a], self.groups[b]
        for matrix, change in ((self.T, eta), (self.R, theta)):
            matrix[p] += change
            matrix[q] -= change
        self.groups[a], self.groups[b] = q, p
        # First the old P and G with the new T and R ...
        XT, XR = X @ self.T, X @ self.R
        own = X[:, self.groups]
        half_uPu, half_uGu = (X[[0, 2], p] - X[[0, 2], q]) / 2
        uPT = XT[0] - half_uPu * eta
        uE = XT[2] - half_uGu * eta - XR[0] + half_uPu * theta
        self.PT_own += own[0] * eta
        self.E_own += own[2] * eta - own[0] * theta
        self.H_diagonal += 2 * eta * uPT
        self.L_diagonal += 2 * (eta * uE - theta * uPT)
        # ... and then the new P = P - X^T K X and G = G + X^T M X.
        KX = K @ X[:2]
        self.P -= X[:2].T @ KX
        self.G += X.T @ (M @ X)
        KXT, MXT, KXR = K @ XT[:2], M @ XT, K @ XR[:2]
        self.PT_own -= (own[:2] * KXT).sum(0)
        self.E_own += (own * MXT).sum(0) + (own[:2] * KXR).sum(0)
        self.H_diagonal -= (XT[:2] * KXT).sum(0)
        self.L_diagonal += (XT * MXT).sum(0) + 2 * (XR[:2] * KXT).sum(0)
        for i in (a, b):
            self._renew_own(i)

    def _renew_own(self, i):
        p = self.groups[i]
        self.PT_own[i] = self.P[p] @ self.T[:, i]
        self.E_own[i] = self.G[p] @ self.T[:, i] - self.P[p] @ self.R[:, i]


def add_rows(matrix: Array, groups: Array) -> Array:
    """F @ matrix: adds the rows of each group."""
    by_group = numpy.argsort(groups, kind='stable')
    n_groups = int(groups.max()) + 1
    rows = by_group.reshape(n_groups, -1)
    result = matrix[rows[:, 0]]
    for column in rows[:, 1:].T:
        result += matrix[column]
    return result


def invert(matrix: Array) -> Array:
    """Inverse of a symmetric positive definite matrix."""
    return symmetrize(numpy.linalg.inv(matrix))


def symmetrize(matrix: Array) -> Array:
    return (matrix + matrix.T) / 2


def invert_two(K: Array) -> Array:
    """Inverse of a symmetric matrix of two rows."""
    determinant = K[0, 0] * K[1, 1] - K[0, 1] * K[1, 0]
    return numpy.array(
        [[K[1, 1], -K[0, 1]], [-K[1, 0], K[0, 0]]]) / determinant
