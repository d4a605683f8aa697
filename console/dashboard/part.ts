import { DashboardIcon } from '../shell/icons.tsx';
import type { Part } from '../shell/parts.ts';
import { Dashboard } from './dashboard.tsx';

export const dashboard: Part = {
  name: 'dashboard',
  title: 'Dashboard',
  Icon: DashboardIcon,
  View: Dashboard,
};
